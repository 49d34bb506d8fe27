# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Tests of a kernel or distribution of your own, in any test runner or none: each function raises an
`AssertionError` that says what was found and what was wanted.
"""

from numpyro_scores.testing.distribution_contract import check_distribution
from numpyro_scores.testing.invariance import Invariance, check_invariance
from numpyro_scores.testing.kernel_contract import check_kernel

__all__ = [
    "Invariance",
    "check_distribution",
    "check_invariance",
    "check_kernel",
]
