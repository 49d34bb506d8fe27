# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The groups of a new store: names, dimensions and coordinates, and the data."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_scores.diagnostics.arviz.datasets import SAMPLE_DIMS, dataset, without_clashes
from numpyro_scores.diagnostics.arviz.inference_data import _trace
from numpyro_scores.diagnostics.arviz.log_likelihood import is_observed
from numpyro_scores.long_runs.names import Names, storable
from numpyro_scores.long_runs.stores import WARMUP

if TYPE_CHECKING:
    import xarray


def groups_of(
    mcmc: Any,
    names: Names,
    point: Mapping[str, Any] | None,
    sizes: Mapping[str, int],
    keeps_warmup: bool,
) -> dict[str, "xarray.Dataset"]:
    """
    As :func:`~numpyro_scores.to_inference_data` makes them, without a draw yet.

    :param mcmc: the run, for its model and what that was called with.
    :param names: of its variables.
    :param point: a value of each site, from which plates and data are seen; None for neither.
    :param sizes: numbers of chains and, if there are many, of data sets.
    :param keeps_warmup: whether there are groups of warmup as well.
    """
    lanes = (sizes["chain"], 0, *([sizes["dataset"]] if "dataset" in sizes else []))
    groups = names.groups(*names.empty(lanes))
    if keeps_warmup:
        groups |= {f"{WARMUP}{group}": variables for group, variables in groups.items()}
    trace = {} if point is None else _trace(mcmc, point)
    observed = {
        name: storable(np.asarray(site["value"]))
        for name, site in trace.items()
        if is_observed(site)
    }
    trace = without_clashes({"posterior": {}}, trace)[1]
    sample_dims = (*SAMPLE_DIMS, *(["dataset"] if "dataset" in sizes else []))
    made = {
        group: dataset(variables, sample_dims, trace, None, None)
        for group, variables in groups.items()
    }
    if observed:
        made["observed_data"] = dataset(observed, (), trace, None, None)
    return made
