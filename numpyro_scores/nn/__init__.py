# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Networks: energies and denoisers, as Flax nnx modules."""

from numpyro_scores.nn.denoisers import MLPDenoiser
from numpyro_scores.nn.energies import ConvEnergy, MLPEnergy
from numpyro_scores.nn.made import MADE
from numpyro_scores.nn.noise_energies import MLPNoiseEnergy, UNetNoiseEnergy
from numpyro_scores.nn.pixel_cnn import PixelCNN
from numpyro_scores.nn.preconditioning import Preconditioned
from numpyro_scores.nn.readouts import inner_product, squared_error, squared_norm
from numpyro_scores.nn.unet import UNetDenoiser

__all__ = [
    "MADE",
    "ConvEnergy",
    "MLPDenoiser",
    "MLPEnergy",
    "MLPNoiseEnergy",
    "PixelCNN",
    "Preconditioned",
    "UNetDenoiser",
    "UNetNoiseEnergy",
    "inner_product",
    "squared_error",
    "squared_norm",
]
