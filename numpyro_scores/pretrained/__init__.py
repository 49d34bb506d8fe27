# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Public diffusion models, of diffusers and of the authors of EDM, as denoisers, without torch; and
networks that torch computes.
"""

from numpyro_scores.pretrained.edm.loading import load_edm
from numpyro_scores.pretrained.loading import PretrainedModel, load_diffusers
from numpyro_scores.pretrained.torch_network import from_torch

__all__ = ["PretrainedModel", "from_torch", "load_diffusers", "load_edm"]
