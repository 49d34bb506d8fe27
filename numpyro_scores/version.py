# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""The version of the package, which the build reads as well."""

__version__ = "0.1.0"
