# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Normalisers of unnormalised distributions."""

from numpyro_scores.normalizers._base import LogNormalizer
from numpyro_scores.normalizers.annealed_importance import (
    AnnealedImportanceSampling,
    ReverseAnnealedImportanceSampling,
)
from numpyro_scores.normalizers.bethe import BetheBound
from numpyro_scores.normalizers.default_method import log_normalizer
from numpyro_scores.normalizers.enumeration import Enumeration
from numpyro_scores.normalizers.mean_field import MeanFieldBound
from numpyro_scores.normalizers.thermodynamic import ThermodynamicIntegration
from numpyro_scores.normalizers.transfer_matrix import TransferMatrix
from numpyro_scores.normalizers.tree_reweighted import TreeReweightedBound

__all__ = [
    "AnnealedImportanceSampling",
    "BetheBound",
    "Enumeration",
    "LogNormalizer",
    "MeanFieldBound",
    "ReverseAnnealedImportanceSampling",
    "ThermodynamicIntegration",
    "TransferMatrix",
    "TreeReweightedBound",
    "log_normalizer",
]
