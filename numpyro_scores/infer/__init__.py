# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Kernels that plug into NumPyro's `MCMC`."""

from numpyro_scores.infer.annealed import AnnealedLangevin, AnnealedLangevinState
from numpyro_scores.infer.ladders import InverseTemperatures, LikelihoodPowers, NoiseLevels
from numpyro_scores.infer.mala import MALA, MALAState
from numpyro_scores.infer.malt import MALT, MALTState
from numpyro_scores.infer.overdamped import ULA, OverdampedLangevin, OverdampedState
from numpyro_scores.infer.replica_exchange import ReplicaExchange, ReplicaExchangeState

__all__ = [
    "MALA",
    "MALT",
    "ULA",
    "AnnealedLangevin",
    "AnnealedLangevinState",
    "InverseTemperatures",
    "LikelihoodPowers",
    "MALAState",
    "MALTState",
    "NoiseLevels",
    "OverdampedLangevin",
    "OverdampedState",
    "ReplicaExchange",
    "ReplicaExchangeState",
]
