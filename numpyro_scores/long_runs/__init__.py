# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Runs that are longer than memory: any kernel of NumPyro's, chunk by chunk into a store."""

from numpyro_scores.long_runs.convergence import Convergence, Until, until
from numpyro_scores.long_runs.netcdf_store import NetCDFStore
from numpyro_scores.long_runs.stored_mcmc import StoredMCMC
from numpyro_scores.long_runs.stores import Checkpoint, DrawStore, MemoryStore
from numpyro_scores.long_runs.zarr_store import ZarrStore

__all__ = [
    "Checkpoint",
    "Convergence",
    "DrawStore",
    "MemoryStore",
    "NetCDFStore",
    "StoredMCMC",
    "Until",
    "ZarrStore",
    "until",
]
