# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Networks in the format of Karras et al. (2022): those of score_sde and of ADM."""
