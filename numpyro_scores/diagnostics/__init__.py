# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Looking at a score, at samples, and at what a run drew: tests, distances, ArviZ objects, figures.
ArviZ and Matplotlib load on first use."""

from numpyro_scores.densities.conservativeness import Conservativeness, conservativeness
from numpyro_scores.diagnostics._estimates import Estimate
from numpyro_scores.diagnostics._kernels import gaussian_kernel, imq_kernel
from numpyro_scores.diagnostics.arviz.figures import plot_posterior_images, plot_trace_rank
from numpyro_scores.diagnostics.arviz.inference_data import to_inference_data
from numpyro_scores.diagnostics.calibration.coverage import Coverage, coverage
from numpyro_scores.diagnostics.calibration.geweke import GewekeTest, geweke_test
from numpyro_scores.diagnostics.calibration.simulation_based import (
    SimulationBasedCalibration,
    simulation_based_calibration,
)
from numpyro_scores.diagnostics.calibration.tarp import Tarp, tarp
from numpyro_scores.diagnostics.likelihood.annealed import annealed_log_likelihood
from numpyro_scores.diagnostics.likelihood.evidence import EvidenceBounds, evidence_bounds
from numpyro_scores.diagnostics.likelihood.importance import (
    ImportanceEstimate,
    importance_log_likelihood,
    log_mean_weight,
)
from numpyro_scores.diagnostics.likelihood.kernel_density import (
    KernelDensity,
    kernel_density_log_likelihood,
)
from numpyro_scores.diagnostics.quality.frechet import FrechetDistance, frechet_distance
from numpyro_scores.diagnostics.quality.inception import InceptionScore, inception_score
from numpyro_scores.diagnostics.quality.kernel_distance import kernel_distance
from numpyro_scores.diagnostics.quality.neighbours import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    precision_recall,
)
from numpyro_scores.diagnostics.quality.pictures import psnr, ssim
from numpyro_scores.diagnostics.report.diagnose import diagnose
from numpyro_scores.diagnostics.report.estimates import ElementSummary
from numpyro_scores.diagnostics.report.missed_modes import MissedModes, missed_modes
from numpyro_scores.diagnostics.report.reports import Fault, Line, Report
from numpyro_scores.diagnostics.representation.beta_vae import beta_vae_score
from numpyro_scores.diagnostics.representation.clustering import (
    ClusteringScores,
    clustering_scores,
)
from numpyro_scores.diagnostics.representation.factor_vae import factor_vae_score
from numpyro_scores.diagnostics.representation.importance import DCI, dci
from numpyro_scores.diagnostics.representation.information import (
    Modularity,
    MutualInformationGap,
    modularity,
    mutual_information_gap,
)
from numpyro_scores.diagnostics.representation.sap import SAPScore, sap_score
from numpyro_scores.diagnostics.representation.table import (
    RepresentationTable,
    representation_table,
)
from numpyro_scores.diagnostics.representation.votes import SharedFactorScore
from numpyro_scores.diagnostics.score.finite_set_stein import (
    FiniteSetSteinDiscrepancy,
    finite_set_stein_discrepancy,
)
from numpyro_scores.diagnostics.score.fisher import fisher_divergence
from numpyro_scores.diagnostics.score.kernel_stein import (
    KernelSteinDiscrepancy,
    kernel_stein_discrepancy,
)
from numpyro_scores.diagnostics.score.level_consistency import (
    LevelConsistency,
    level_consistency,
)
from numpyro_scores.diagnostics.score.level_normalizers import (
    LevelNormalizers,
    level_normalizers,
)
from numpyro_scores.diagnostics.score.noise_levels import ScoreByLevel, score_by_level
from numpyro_scores.diagnostics.score.stein_thinning import SteinThinning, stein_thinning
from numpyro_scores.diagnostics.two_sample.classifier_test import (
    ClassifierTest,
    classifier_two_sample_test,
)
from numpyro_scores.diagnostics.two_sample.classifiers import (
    Classifier,
    LogisticRegression,
    SmallNetwork,
)
from numpyro_scores.diagnostics.two_sample.energy_distance import EnergyDistance, energy_distance
from numpyro_scores.diagnostics.two_sample.mmd import MMDTest, linear_mmd_test, mmd_test
from numpyro_scores.diagnostics.two_sample.moment_tests import MomentTest, mean_test, variance_test
from numpyro_scores.diagnostics.two_sample.sliced_wasserstein import (
    SlicedWasserstein,
    sliced_wasserstein,
)

__all__ = [
    "DCI",
    "Classifier",
    "ClassifierTest",
    "ClusteringScores",
    "Conservativeness",
    "Coverage",
    "DensityCoverage",
    "ElementSummary",
    "EnergyDistance",
    "Estimate",
    "EvidenceBounds",
    "Fault",
    "FiniteSetSteinDiscrepancy",
    "FrechetDistance",
    "GewekeTest",
    "ImportanceEstimate",
    "InceptionScore",
    "KernelDensity",
    "KernelSteinDiscrepancy",
    "LevelConsistency",
    "LevelNormalizers",
    "Line",
    "LogisticRegression",
    "MMDTest",
    "MissedModes",
    "Modularity",
    "MomentTest",
    "MutualInformationGap",
    "PrecisionRecall",
    "Report",
    "RepresentationTable",
    "SAPScore",
    "ScoreByLevel",
    "SharedFactorScore",
    "SimulationBasedCalibration",
    "SlicedWasserstein",
    "SmallNetwork",
    "SteinThinning",
    "Tarp",
    "annealed_log_likelihood",
    "beta_vae_score",
    "classifier_two_sample_test",
    "clustering_scores",
    "conservativeness",
    "coverage",
    "dci",
    "density_coverage",
    "diagnose",
    "energy_distance",
    "evidence_bounds",
    "factor_vae_score",
    "finite_set_stein_discrepancy",
    "fisher_divergence",
    "frechet_distance",
    "gaussian_kernel",
    "geweke_test",
    "importance_log_likelihood",
    "imq_kernel",
    "inception_score",
    "kernel_density_log_likelihood",
    "kernel_distance",
    "kernel_stein_discrepancy",
    "level_consistency",
    "level_normalizers",
    "linear_mmd_test",
    "log_mean_weight",
    "mean_test",
    "missed_modes",
    "mmd_test",
    "modularity",
    "mutual_information_gap",
    "plot_posterior_images",
    "plot_trace_rank",
    "precision_recall",
    "psnr",
    "representation_table",
    "sap_score",
    "score_by_level",
    "simulation_based_calibration",
    "sliced_wasserstein",
    "ssim",
    "stein_thinning",
    "tarp",
    "to_inference_data",
    "variance_test",
]
