# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Objectives, `objective(module, x, key=key)`: what a module is trained on."""

from numpyro_scores._callables import as_score
from numpyro_scores.objectives.contrastive import (
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
)
from numpyro_scores.objectives.denoising import (
    DenoisingScoreMatching,
    KarrasWeight,
    ScoreWeight,
)
from numpyro_scores.objectives.implicit import ImplicitScoreMatching
from numpyro_scores.objectives.pseudo_likelihood import PseudoLikelihood, RatioMatching
from numpyro_scores.objectives.sliced import SlicedScoreMatching

__all__ = [
    "ContrastiveDivergence",
    "DenoisingScoreMatching",
    "ImplicitScoreMatching",
    "KarrasWeight",
    "PersistentContrastiveDivergence",
    "PseudoLikelihood",
    "RatioMatching",
    "ScoreWeight",
    "SlicedScoreMatching",
    "as_score",
]
