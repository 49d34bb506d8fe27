# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Objectives, `objective(module, x, key=key)`: what a module is trained on."""

from numpyro_scores._callables import as_score
from numpyro_scores.objectives.adversarial import (
    AdversarialLikelihood,
    AdversarialPair,
    GenerativeAdversarial,
)
from numpyro_scores.objectives.conditional_noise_contrastive import (
    ConditionalNoiseContrastiveEstimation,
)
from numpyro_scores.objectives.contrastive import (
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
)
from numpyro_scores.objectives.denoising import DenoisingScoreMatching
from numpyro_scores.objectives.dual import DualScoreMatching
from numpyro_scores.objectives.energy_discrepancy import EnergyDiscrepancy
from numpyro_scores.objectives.finite_difference import FiniteDifferenceScoreMatching
from numpyro_scores.objectives.flow_matching import FlowMatching
from numpyro_scores.objectives.implicit import ImplicitScoreMatching
from numpyro_scores.objectives.noise_contrastive import NoiseContrastiveEstimation
from numpyro_scores.objectives.noise_weights import (
    KarrasWeight,
    LikelihoodWeight,
    ScoreWeight,
    VelocityWeight,
)
from numpyro_scores.objectives.pseudo_likelihood import PseudoLikelihood
from numpyro_scores.objectives.ratio_matching import RatioMatching
from numpyro_scores.objectives.sliced import SlicedScoreMatching
from numpyro_scores.objectives.variational import VariationalEnergy, VariationalPair

__all__ = [
    "AdversarialLikelihood",
    "AdversarialPair",
    "ConditionalNoiseContrastiveEstimation",
    "ContrastiveDivergence",
    "DenoisingScoreMatching",
    "DualScoreMatching",
    "EnergyDiscrepancy",
    "FiniteDifferenceScoreMatching",
    "FlowMatching",
    "GenerativeAdversarial",
    "ImplicitScoreMatching",
    "KarrasWeight",
    "LikelihoodWeight",
    "NoiseContrastiveEstimation",
    "PersistentContrastiveDivergence",
    "PseudoLikelihood",
    "RatioMatching",
    "ScoreWeight",
    "SlicedScoreMatching",
    "VariationalEnergy",
    "VariationalPair",
    "VelocityWeight",
    "as_score",
]
