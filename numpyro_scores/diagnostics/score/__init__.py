# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether samples and a score belong together: Stein's identity, the Fisher divergence."""
