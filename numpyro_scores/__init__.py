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
    long_runs,
    nn,
    objectives,
    processes,
    samplers,
    schedules,
)
from numpyro_scores.densities.adaptive_flow import AdaptiveProbabilityFlow
from numpyro_scores.densities.flow import ProbabilityFlow
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.noise_path import NoisePathIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.densities.traces import ExactTrace, HutchinsonTrace
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
    ProductOfExperts,
    ScoreDistribution,
)
from numpyro_scores.guidance import ClassifierFreeGuidance
from numpyro_scores.infer import (
    DAPS,
    MALA,
    MALT,
    SKROCK,
    ULA,
    AnnealedLangevin,
    BlockGibbs,
    DiffusionPosteriorSampling,
    DiscreteLangevin,
    ExchangeKernel,
    GibbsWithGradients,
    InverseTemperatures,
    LikelihoodPowers,
    MomentMatching,
    NoiseLevels,
    OverdampedLangevin,
    ReplicaExchange,
    SplitGibbs,
    SwendsenWang,
    TemperedSMC,
    TwistedDiffusionSampler,
    UnderdampedLangevin,
)
from numpyro_scores.integrators import BAOAB, OBABO, UBU, EulerMaruyama, LeimkuhlerMatthews
from numpyro_scores.long_runs import StoredMCMC, until
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
from numpyro_scores.samplers import DDIM, Ancestral, Heun, Multistep, PredictorCorrector, ReverseSDE
from numpyro_scores.training import FitProgress, FitResult, fit, load_weights, save_weights
from numpyro_scores.version import __version__

__all__ = [
    "BAOAB",
    "ClassifierFreeGuidance",
    "DAPS",
    "DDIM",
    "DDPM",
    "MALA",
    "MALT",
    "OBABO",
    "SKROCK",
    "UBU",
    "ULA",
    "AdaptiveProbabilityFlow",
    "Ancestral",
    "AnnealedImportanceSampling",
    "AnnealedLangevin",
    "BernoulliRBM",
    "BlockGibbs",
    "DiffusionPosteriorSampling",
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
    "Heun",
    "HutchinsonTrace",
    "InverseTemperatures",
    "Ising",
    "LeimkuhlerMatthews",
    "LikelihoodPowers",
    "LineIntegral",
    "LogNormalizer",
    "MomentMatching",
    "Multistep",
    "NoiseLevels",
    "NoisePathIntegral",
    "OverdampedLangevin",
    "PairwiseMRF",
    "Potts",
    "PredictorCorrector",
    "ProbabilityFlow",
    "ReplicaExchange",
    "ProductOfExperts",
    "ReverseAnnealedImportanceSampling",
    "ReverseSDE",
    "ScoreDistribution",
    "SegmentIntegral",
    "SplitGibbs",
    "StoredMCMC",
    "ThermodynamicIntegration",
    "SubVariancePreserving",
    "SwendsenWang",
    "TemperedSMC",
    "TransferMatrix",
    "TwistedDiffusionSampler",
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
    "long_runs",
    "nn",
    "objectives",
    "processes",
    "samplers",
    "save_weights",
    "schedules",
    "to_inference_data",
    "until",
]
