# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Kernels that plug into NumPyro's `MCMC`."""

from numpyro_scores.infer.diffusion.annealed import AnnealedLangevin
from numpyro_scores.infer.diffusion.decoupled_annealing import DAPS
from numpyro_scores.infer.diffusion.draws import AnnealedState
from numpyro_scores.infer.diffusion.gauss_newton import GaussNewton
from numpyro_scores.infer.diffusion.moment_matching import MomentMatching
from numpyro_scores.infer.diffusion.posterior_sampling import DiffusionPosteriorSampling
from numpyro_scores.infer.diffusion.split_gibbs import SplitGibbs, SplitGibbsState
from numpyro_scores.infer.discrete.base import DiscreteKernel, DiscreteState
from numpyro_scores.infer.discrete.block_gibbs import BlockGibbs
from numpyro_scores.infer.discrete.discrete_langevin import DiscreteLangevin, StepSizeState
from numpyro_scores.infer.discrete.gibbs_with_gradients import GibbsWithGradients
from numpyro_scores.infer.discrete.informed import InformedState
from numpyro_scores.infer.discrete.swendsen_wang import SwendsenWang
from numpyro_scores.infer.exchange import ExchangeKernel, ExchangeState
from numpyro_scores.infer.ladders import InverseTemperatures, LikelihoodPowers, NoiseLevels
from numpyro_scores.infer.langevin.adjusted import AdjustedState
from numpyro_scores.infer.langevin.base import LangevinKernel
from numpyro_scores.infer.langevin.mala import MALA
from numpyro_scores.infer.langevin.malt import MALT
from numpyro_scores.infer.langevin.mams import MAMS
from numpyro_scores.infer.langevin.mclmc import MCLMC
from numpyro_scores.infer.langevin.metric import Dense, Diagonal
from numpyro_scores.infer.langevin.overdamped import SKROCK, ULA, OverdampedLangevin
from numpyro_scores.infer.langevin.trajectory_length import AutocorrelationLength, UTurnLength
from numpyro_scores.infer.langevin.unadjusted import UnadjustedState
from numpyro_scores.infer.langevin.underdamped import UnderdampedLangevin
from numpyro_scores.infer.low_rank import LowRank
from numpyro_scores.infer.replica_exchange import ReplicaExchange, ReplicaExchangeState
from numpyro_scores.infer.smc.noise_level_smc import NoiseLevelSMC
from numpyro_scores.infer.smc.tempered import TemperedSMC
from numpyro_scores.infer.smc.twisted import TwistedDiffusionSampler

__all__ = [
    "DAPS",
    "MALA",
    "MALT",
    "MAMS",
    "MCLMC",
    "ULA",
    "AdjustedState",
    "AnnealedLangevin",
    "AnnealedState",
    "AutocorrelationLength",
    "BlockGibbs",
    "Dense",
    "Diagonal",
    "DiffusionPosteriorSampling",
    "DiscreteKernel",
    "DiscreteLangevin",
    "DiscreteState",
    "ExchangeKernel",
    "ExchangeState",
    "GaussNewton",
    "GibbsWithGradients",
    "InformedState",
    "InverseTemperatures",
    "LangevinKernel",
    "LikelihoodPowers",
    "LowRank",
    "MomentMatching",
    "NoiseLevelSMC",
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
    "UTurnLength",
    "UnadjustedState",
    "UnderdampedLangevin",
]
