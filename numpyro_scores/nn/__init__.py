# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Networks: energies and denoisers, as Flax nnx modules."""

from numpyro_scores.nn.denoisers import MLPDenoiser
from numpyro_scores.nn.energies import MLPEnergy
from numpyro_scores.nn.preconditioning import Preconditioned

__all__ = ["MLPDenoiser", "MLPEnergy", "Preconditioned"]
