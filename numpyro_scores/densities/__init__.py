# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Densities from scores and denoisers: their values, their traces, and whether a score has one."""

from numpyro_scores.densities.adaptive_flow import AdaptiveProbabilityFlow
from numpyro_scores.densities.flow import ProbabilityFlow
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.noise_path import NoisePathIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.densities.traces import ExactTrace, HutchinsonTrace

__all__ = [
    "AdaptiveProbabilityFlow",
    "ExactTrace",
    "HutchinsonTrace",
    "LineIntegral",
    "NoisePathIntegral",
    "ProbabilityFlow",
    "SegmentIntegral",
]
