# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Samplers of a diffusion prior: how a point goes from the largest noise level down to a small one.
"""

from numpyro_scores.samplers._base import PriorSampler, ReverseSampler
from numpyro_scores.samplers.adaptive import AdaptiveFlow
from numpyro_scores.samplers.ddim import DDIM, Ancestral
from numpyro_scores.samplers.heun import Heun
from numpyro_scores.samplers.langevin import Langevin
from numpyro_scores.samplers.multistep import Multistep
from numpyro_scores.samplers.reverse_sde import PredictorCorrector, ReverseSDE
from numpyro_scores.samplers.spacings import KarrasSpacing, Spacing, TimeSpacing

__all__ = [
    "AdaptiveFlow",
    "Ancestral",
    "DDIM",
    "Heun",
    "KarrasSpacing",
    "Langevin",
    "Multistep",
    "PredictorCorrector",
    "PriorSampler",
    "ReverseSDE",
    "ReverseSampler",
    "Spacing",
    "TimeSpacing",
]
