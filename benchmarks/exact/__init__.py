# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Published problems whose posteriors are known, one set a file; `python -m benchmarks.exact`."""
