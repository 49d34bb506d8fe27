# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies, scores and denoisers as NumPyro distributions."""

from numpyro_scores.distributions.diffusion import DiffusionPrior
from numpyro_scores.distributions.energy import EnergyDistribution
from numpyro_scores.distributions.score import ScoreDistribution

__all__ = ["DiffusionPrior", "EnergyDistribution", "ScoreDistribution"]
