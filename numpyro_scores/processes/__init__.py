# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Noise processes: how the noise level grows, in the coordinates of the denoiser. (Denoisers of
networks of other coordinates are listed here and made in :mod:`numpyro_scores.denoisers`.)
"""

from numpyro_scores.denoisers.predictions import (
    EpsilonPrediction,
    ScorePrediction,
    VelocityPrediction,
    VPrediction,
    X0Prediction,
    log_noise_level,
)
from numpyro_scores.processes._base import NoiseProcess, TimedProcess
from numpyro_scores.processes.ddpm import DDPM
from numpyro_scores.processes.rectified_flow import RectifiedFlow
from numpyro_scores.processes.variance_exploding import VarianceExploding
from numpyro_scores.processes.variance_preserving import (
    SubVariancePreserving,
    VariancePreserving,
)

__all__ = [
    "DDPM",
    "EpsilonPrediction",
    "NoiseProcess",
    "RectifiedFlow",
    "ScorePrediction",
    "SubVariancePreserving",
    "TimedProcess",
    "VPrediction",
    "VelocityPrediction",
    "VarianceExploding",
    "VariancePreserving",
    "X0Prediction",
    "log_noise_level",
]
