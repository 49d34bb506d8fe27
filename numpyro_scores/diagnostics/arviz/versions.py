# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The one difference between ArviZ 0.x and 1.x that matters here: what holds the groups.

ArviZ 0.x has its own `InferenceData`; 1.x uses xarray's `DataTree`. The groups themselves are
`xarray.Dataset` in both, and R-hat and ESS of a `Dataset` are called alike.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray


def pack_groups(groups: Mapping[str, "xarray.Dataset"]) -> Any:
    """Hold the datasets in the container of the installed ArviZ."""
    import arviz
    import xarray

    # Not hasattr: ArviZ 1.x answers for the old name with a warning.
    container = vars(arviz).get("InferenceData")
    if container is None:
        return xarray.DataTree.from_dict(groups)
    return container(**groups, save_warmup=True)


def posterior_dataset(inference_data: Any) -> "xarray.Dataset":
    """The posterior of either container; the group alone, or a dataset, is taken as it is."""
    import xarray

    group = inference_data
    if not isinstance(group, xarray.Dataset) and hasattr(group, "__getitem__"):
        group = group["posterior"] if "posterior" in group else group
    if isinstance(group, xarray.DataTree):
        group = group.to_dataset()
    if not isinstance(group, xarray.Dataset) or not {"chain", "draw"} <= set(group.dims):
        hint = ""
        if isinstance(inference_data, Mapping):
            hint = " (arviz.from_dict makes one of a dict of arrays of shape (chains, draws, ...))"
        raise TypeError(
            "Expected what to_inference_data returns, or an xarray.Dataset of draws with the "
            f"dimensions chain and draw{hint}; got {type(inference_data).__name__}."
        )
    return group


def group_dataset(inference_data: Any, name: str) -> "xarray.Dataset | None":
    """Another group of what has a posterior, or None if it is not there."""
    import xarray

    if isinstance(inference_data, xarray.Dataset) or name not in inference_data:
        return None
    group = inference_data[name]
    return group.to_dataset() if isinstance(group, xarray.DataTree) else group
