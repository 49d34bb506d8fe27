# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Kernels that plug into NumPyro's `MCMC`."""

from numpyro_scores.infer._adjusted import AdjustedState
from numpyro_scores.infer._base import LangevinKernel
from numpyro_scores.infer._discrete import DiscreteKernel, DiscreteState
from numpyro_scores.infer._informed import InformedState
from numpyro_scores.infer._noise_levels import AnnealedState
from numpyro_scores.infer._unadjusted import UnadjustedState
from numpyro_scores.infer.annealed import AnnealedLangevin
from numpyro_scores.infer.block_gibbs import BlockGibbs
from numpyro_scores.infer.decoupled_annealing import DAPS
from numpyro_scores.infer.discrete_langevin import DiscreteLangevin, StepSizeState
from numpyro_scores.infer.exchange import ExchangeKernel, ExchangeState
from numpyro_scores.infer.gibbs_with_gradients import GibbsWithGradients
from numpyro_scores.infer.ladders import InverseTemperatures, LikelihoodPowers, NoiseLevels
from numpyro_scores.infer.mala import MALA
from numpyro_scores.infer.malt import MALT
from numpyro_scores.infer.moment_matching import MomentMatching
from numpyro_scores.infer.overdamped import SKROCK, ULA, OverdampedLangevin
from numpyro_scores.infer.posterior_sampling import DiffusionPosteriorSampling
from numpyro_scores.infer.replica_exchange import ReplicaExchange, ReplicaExchangeState
from numpyro_scores.infer.split_gibbs import SplitGibbs, SplitGibbsState
from numpyro_scores.infer.swendsen_wang import SwendsenWang
from numpyro_scores.infer.tempered_smc import TemperedSMC
from numpyro_scores.infer.twisted_diffusion import TwistedDiffusionSampler
from numpyro_scores.infer.underdamped import UnderdampedLangevin

__all__ = [
    "DAPS",
    "MALA",
    "MALT",
    "ULA",
    "AdjustedState",
    "AnnealedLangevin",
    "AnnealedState",
    "BlockGibbs",
    "DiffusionPosteriorSampling",
    "DiscreteKernel",
    "DiscreteLangevin",
    "DiscreteState",
    "ExchangeKernel",
    "ExchangeState",
    "GibbsWithGradients",
    "InformedState",
    "InverseTemperatures",
    "LangevinKernel",
    "LikelihoodPowers",
    "MomentMatching",
    "NoiseLevels",
    "OverdampedLangevin",
    "ReplicaExchange",
    "ReplicaExchangeState",
    "SKROCK",
    "SplitGibbs",
    "SplitGibbsState",
    "StepSizeState",
    "SwendsenWang",
    "TemperedSMC",
    "TwistedDiffusionSampler",
    "UnadjustedState",
    "UnderdampedLangevin",
]
