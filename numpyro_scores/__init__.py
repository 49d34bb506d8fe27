# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Learned priors for NumPyro: energies, scores and diffusion models as distributions, Langevin kernels
for `numpyro.infer.MCMC`, score-matching objectives to train them, and their diagnosis with ArviZ.
"""

from numpyro_scores import (
    diagnostics,
    handlers,
    infer,
    integrators,
    inverse,
    nn,
    objectives,
    processes,
    schedules,
)
from numpyro_scores.densities import LineIntegral, NoisePathIntegral, ProbabilityFlow
from numpyro_scores.diagnostics import diagnose, to_inference_data
from numpyro_scores.distributions import (
    BernoulliRBM,
    DiffusionPrior,
    EnergyDistribution,
    GaussianBernoulliRBM,
    GeneratorPrior,
    Ising,
    PairwiseMRF,
    Potts,
    ScoreDistribution,
)
from numpyro_scores.infer import (
    MALA,
    MALT,
    SKROCK,
    ULA,
    AnnealedLangevin,
    BlockGibbs,
    DiscreteLangevin,
    ExchangeKernel,
    GibbsWithGradients,
    InverseTemperatures,
    LikelihoodPowers,
    NoiseLevels,
    OverdampedLangevin,
    ReplicaExchange,
    SwendsenWang,
    UnderdampedLangevin,
)
from numpyro_scores.integrators import BAOAB, OBABO, UBU, EulerMaruyama, LeimkuhlerMatthews
from numpyro_scores.normalizers import (
    AnnealedImportanceSampling,
    Enumeration,
    LogNormalizer,
    ReverseAnnealedImportanceSampling,
    ThermodynamicIntegration,
    TransferMatrix,
    log_normalizer,
)
from numpyro_scores.processes import (
    DDPM,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from numpyro_scores.stein import ExactTrace, HutchinsonTrace
from numpyro_scores.training import FitProgress, FitResult, fit, load_weights, save_weights
from numpyro_scores.version import __version__

__all__ = [
    "BAOAB",
    "DDPM",
    "MALA",
    "MALT",
    "OBABO",
    "SKROCK",
    "UBU",
    "ULA",
    "AnnealedImportanceSampling",
    "AnnealedLangevin",
    "BernoulliRBM",
    "BlockGibbs",
    "DiffusionPrior",
    "DiscreteLangevin",
    "EnergyDistribution",
    "Enumeration",
    "EulerMaruyama",
    "ExactTrace",
    "ExchangeKernel",
    "FitProgress",
    "FitResult",
    "GaussianBernoulliRBM",
    "GeneratorPrior",
    "GibbsWithGradients",
    "HutchinsonTrace",
    "InverseTemperatures",
    "Ising",
    "LeimkuhlerMatthews",
    "LikelihoodPowers",
    "LineIntegral",
    "LogNormalizer",
    "NoiseLevels",
    "NoisePathIntegral",
    "OverdampedLangevin",
    "PairwiseMRF",
    "Potts",
    "ProbabilityFlow",
    "ReplicaExchange",
    "ReverseAnnealedImportanceSampling",
    "ScoreDistribution",
    "ThermodynamicIntegration",
    "SubVariancePreserving",
    "SwendsenWang",
    "TransferMatrix",
    "UnderdampedLangevin",
    "VarianceExploding",
    "VariancePreserving",
    "__version__",
    "diagnose",
    "diagnostics",
    "fit",
    "handlers",
    "infer",
    "integrators",
    "inverse",
    "load_weights",
    "log_normalizer",
    "nn",
    "objectives",
    "processes",
    "save_weights",
    "schedules",
    "to_inference_data",
]
