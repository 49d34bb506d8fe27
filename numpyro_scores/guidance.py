# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""See :mod:`numpyro_scores.denoisers`."""

from numpyro_scores.denoisers.guidance import ClassifierFreeGuidance

__all__ = ["ClassifierFreeGuidance"]
