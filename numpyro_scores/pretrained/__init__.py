# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Public diffusion models in the format of diffusers, as denoisers; without torch."""

from numpyro_scores.pretrained.loading import PretrainedModel, load_diffusers

__all__ = ["PretrainedModel", "load_diffusers"]
