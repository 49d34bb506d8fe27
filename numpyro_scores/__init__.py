# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Learned priors for NumPyro: energies, scores and diffusion models as distributions, Langevin kernels
for `numpyro.infer.MCMC`, score-matching objectives to train them, and their diagnosis with ArviZ.
"""

import importlib
from typing import TYPE_CHECKING, Any

from numpyro_scores.version import __version__

if TYPE_CHECKING:
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
        testing,
    )
    from numpyro_scores.denoisers import ClassifierFreeGuidance
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
    from numpyro_scores.infer import (
        DAPS,
        MALA,
        MALT,
        MAMS,
        MCLMC,
        SKROCK,
        ULA,
        AnnealedLangevin,
        AutocorrelationLength,
        BlockGibbs,
        Dense,
        Diagonal,
        DiffusionPosteriorSampling,
        DiscreteLangevin,
        ExchangeKernel,
        GaussNewton,
        GibbsWithGradients,
        InverseTemperatures,
        LikelihoodPowers,
        LowRank,
        MomentMatching,
        NoiseLevels,
        NoiseLevelSMC,
        OverdampedLangevin,
        ReplicaExchange,
        SplitGibbs,
        SwendsenWang,
        TemperedSMC,
        TwistedDiffusionSampler,
        UnderdampedLangevin,
        UTurnLength,
    )
    from numpyro_scores.integrators import BAOAB, OBABO, UBU, EulerMaruyama, LeimkuhlerMatthews
    from numpyro_scores.long_runs import StoredMCMC, until
    from numpyro_scores.normalizers import (
        AnnealedImportanceSampling,
        BetheBound,
        Enumeration,
        LogNormalizer,
        MeanFieldBound,
        ReverseAnnealedImportanceSampling,
        ThermodynamicIntegration,
        TransferMatrix,
        TreeReweightedBound,
        log_normalizer,
    )
    from numpyro_scores.pretrained import from_torch, load_diffusers, load_edm
    from numpyro_scores.processes import (
        DDPM,
        RectifiedFlow,
        SubVariancePreserving,
        VarianceExploding,
        VariancePreserving,
    )
    from numpyro_scores.samplers import (
        DDIM,
        Ancestral,
        Heun,
        Multistep,
        PredictorCorrector,
        ReverseSDE,
    )
    from numpyro_scores.training import FitProgress, FitResult, fit, load_weights, save_weights

__all__ = [
    "BAOAB",
    "DAPS",
    "DDIM",
    "DDPM",
    "MALA",
    "MALT",
    "MAMS",
    "MCLMC",
    "OBABO",
    "SKROCK",
    "UBU",
    "ULA",
    "AdaptiveProbabilityFlow",
    "Ancestral",
    "AnnealedImportanceSampling",
    "AnnealedLangevin",
    "AutocorrelationLength",
    "BernoulliRBM",
    "BetheBound",
    "BlockGibbs",
    "ClassifierFreeGuidance",
    "Dense",
    "Diagonal",
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
    "GaussNewton",
    "GibbsWithGradients",
    "Heun",
    "HutchinsonTrace",
    "InverseTemperatures",
    "Ising",
    "LeimkuhlerMatthews",
    "LikelihoodPowers",
    "LineIntegral",
    "LogNormalizer",
    "LowRank",
    "MeanFieldBound",
    "MomentMatching",
    "Multistep",
    "NoiseLevelSMC",
    "NoiseLevels",
    "NoisePathIntegral",
    "OverdampedLangevin",
    "PairwiseMRF",
    "Potts",
    "PredictorCorrector",
    "ProbabilityFlow",
    "ProductOfExperts",
    "RectifiedFlow",
    "ReplicaExchange",
    "ReverseAnnealedImportanceSampling",
    "ReverseSDE",
    "ScoreDistribution",
    "SegmentIntegral",
    "SplitGibbs",
    "StoredMCMC",
    "SubVariancePreserving",
    "SwendsenWang",
    "TemperedSMC",
    "ThermodynamicIntegration",
    "TransferMatrix",
    "TreeReweightedBound",
    "TwistedDiffusionSampler",
    "UTurnLength",
    "UnderdampedLangevin",
    "VarianceExploding",
    "VariancePreserving",
    "__version__",
    "diagnose",
    "diagnostics",
    "fit",
    "from_torch",
    "handlers",
    "infer",
    "integrators",
    "inverse",
    "load_diffusers",
    "load_edm",
    "load_weights",
    "log_normalizer",
    "long_runs",
    "nn",
    "objectives",
    "processes",
    "samplers",
    "save_weights",
    "schedules",
    "testing",
    "to_inference_data",
    "until",
]

# A name is imported when it is first asked for (PEP 562): Flax, Optax and two hundred files of our
# own take about as long as NumPyro itself. The imports above are for type checkers.
_HOMES = {
    "denoisers": "ClassifierFreeGuidance",
    "densities.adaptive_flow": "AdaptiveProbabilityFlow",
    "densities.flow": "ProbabilityFlow",
    "densities.line_integral": "LineIntegral",
    "densities.noise_path": "NoisePathIntegral",
    "densities.segment_integral": "SegmentIntegral",
    "densities.traces": "ExactTrace HutchinsonTrace",
    "diagnostics": "diagnose to_inference_data",
    "distributions": (
        "BernoulliRBM DiffusionPrior EnergyDistribution GaussianBernoulliRBM GeneratorPrior "
        "Ising PairwiseMRF Potts ProductOfExperts ScoreDistribution"
    ),
    "infer": (
        "DAPS MALA MALT MAMS MCLMC SKROCK ULA AnnealedLangevin AutocorrelationLength BlockGibbs "
        "Dense Diagonal DiffusionPosteriorSampling DiscreteLangevin ExchangeKernel "
        "GaussNewton GibbsWithGradients InverseTemperatures LikelihoodPowers LowRank "
        "MomentMatching NoiseLevelSMC NoiseLevels OverdampedLangevin ReplicaExchange SplitGibbs "
        "SwendsenWang TemperedSMC TwistedDiffusionSampler UTurnLength UnderdampedLangevin"
    ),
    "integrators": "BAOAB OBABO UBU EulerMaruyama LeimkuhlerMatthews",
    "long_runs": "StoredMCMC until",
    "normalizers": (
        "AnnealedImportanceSampling BetheBound Enumeration LogNormalizer MeanFieldBound "
        "ReverseAnnealedImportanceSampling ThermodynamicIntegration TransferMatrix "
        "TreeReweightedBound log_normalizer"
    ),
    "pretrained": "from_torch load_diffusers load_edm",
    "processes": "DDPM RectifiedFlow SubVariancePreserving VarianceExploding VariancePreserving",
    "samplers": "DDIM Ancestral Heun Multistep PredictorCorrector ReverseSDE",
    "training": "FitProgress FitResult fit load_weights save_weights",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
_MODULES = set(
    "curvature denoisers densities diagnostics distributions guidance handlers infer integrators "
    "inverse long_runs nn normalizers objectives pretrained processes samplers schedules testing "
    "training".split()
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
