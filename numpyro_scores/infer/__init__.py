# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Kernels that plug into NumPyro's `MCMC`."""

from numpyro_scores.infer._base import LangevinKernel
from numpyro_scores.infer._unadjusted import UnadjustedState
from numpyro_scores.infer.annealed import AnnealedLangevin, AnnealedLangevinState
from numpyro_scores.infer.ladders import InverseTemperatures, LikelihoodPowers, NoiseLevels
from numpyro_scores.infer.mala import MALA, MALAState
from numpyro_scores.infer.overdamped import SKROCK, ULA, OverdampedLangevin
from numpyro_scores.infer.replica_exchange import ReplicaExchange, ReplicaExchangeState
from numpyro_scores.infer.underdamped import UnderdampedLangevin

__all__ = [
    "MALA",
    "ULA",
    "AnnealedLangevin",
    "AnnealedLangevinState",
    "InverseTemperatures",
    "LangevinKernel",
    "LikelihoodPowers",
    "MALAState",
    "NoiseLevels",
    "OverdampedLangevin",
    "ReplicaExchange",
    "ReplicaExchangeState",
    "SKROCK",
    "UnadjustedState",
    "UnderdampedLangevin",
]
