# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""See :mod:`numpyro_scores.samplers`, where the spacings of noise levels are."""

from numpyro_scores.samplers.spacings import geometric, karras

__all__ = ["geometric", "karras"]
