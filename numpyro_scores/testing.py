# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
