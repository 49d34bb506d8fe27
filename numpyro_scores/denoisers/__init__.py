# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Denoisers :math:`D(x, \sigma) \approx \mathbb E[x_0 \mid x_0 + \sigma z = x]` of other things: of
energies, of networks that predict something else, of a class with guidance; and the score that a
denoiser gives.
"""

from numpyro_scores.denoisers.guidance import ClassifierFreeGuidance
from numpyro_scores.denoisers.of_energy import DenoiserOfEnergy
from numpyro_scores.denoisers.predictions import (
    EpsilonPrediction,
    ScorePrediction,
    VelocityPrediction,
    VPrediction,
    X0Prediction,
)

__all__ = [
    "ClassifierFreeGuidance",
    "DenoiserOfEnergy",
    "EpsilonPrediction",
    "ScorePrediction",
    "VPrediction",
    "VelocityPrediction",
    "X0Prediction",
]
