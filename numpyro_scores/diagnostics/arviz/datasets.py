# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Arrays as an `xarray.Dataset`: names of variables, dimensions and coordinates."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpyro

if TYPE_CHECKING:
    import xarray

Arrays = dict[str, np.ndarray]
Dims = Mapping[str, Sequence[str]]

SAMPLE_DIMS = ("chain", "draw")


def variable_name(name: str) -> str:
    """The name of a site without the slash of NumPyro's `scope`, which netCDF forbids."""
    return name.replace("/", ".")


def without_clashes(
    groups: dict[str, Arrays], trace: Mapping[str, Any]
) -> tuple[dict[str, Arrays], dict[str, Any], dict[str, str]]:
    """
    Groups and trace with an underscore after the names of the axes of all draws, and which.
    """
    every = {name for variables in groups.values() for name in variables}
    renamed = {name: f"{name}_" for name in SAMPLE_DIMS if name in every}
    clash = sorted(set(renamed.values()) & every)
    if clash:
        raise ValueError(f"Several sites would be called {', '.join(clash)}: rename all but one.")

    def change(named):
        return {renamed.get(name, name): value for name, value in named.items()}

    return {group: change(named) for group, named in groups.items()}, change(trace), renamed


def checked_dims(
    dims: Dims | None, groups: Mapping[str, Arrays], renamed: Mapping[str, str]
) -> dict[str, Sequence[str]]:
    """The dims by the names of the variables; those of a `scope` may be given with its slash."""
    found = {}
    every = sorted({name for variables in groups.values() for name in variables})
    for key, own in (dims or {}).items():
        name = variable_name(key)
        name = renamed.get(name, name)
        if name not in every:
            raise ValueError(
                f"dims names {key!r}, but no variable of this run is called so; there are {every}."
            )
        if isinstance(own, str):
            raise ValueError(f"dims[{key!r}] must be a sequence of names: [{own!r}].")
        if taken := sorted({*own} & {*SAMPLE_DIMS, *every}):
            raise ValueError(
                f"dims[{key!r}] names {taken}, which variables or the axes of all draws are called "
                "already: choose other names."
            )
        found[name] = own
    return found


def dataset(
    variables: Arrays,
    sample_dims: tuple[str, ...],
    trace: Mapping[str, Any],
    coords: Mapping[str, Any] | None,
    dims: Dims | None,
) -> "xarray.Dataset":
    """The variables of a group, with names and coordinates of their dimensions."""
    import xarray

    coords, dims = coords or {}, dims or {}
    named = {}
    for name, values in variables.items():
        shape = values.shape[len(sample_dims) :]
        own = list(dims[name]) if name in dims else _default_dims(name, shape, trace.get(name))
        if name not in dims:
            # A variable called as a dimension would be its coordinate.
            own = [f"{dim}_" if dim in variables else dim for dim in own]
        if len(own) != len(shape):
            raise ValueError(
                f"dims[{name!r}] names {len(own)} dimensions, {own}, but one value of {name!r} has "
                f"shape {shape}: give one name for each axis (chain and draw are added by itself)."
            )
        named[name] = ([*sample_dims, *own], values)
    index = {}
    for own, values in named.values():
        for dim, size in zip(own, values.shape, strict=True):
            index[dim] = np.asarray(coords.get(dim, np.arange(size)))
            if len(index[dim]) != size:
                raise ValueError(
                    f"coords[{dim!r}] has {len(index[dim])} values for a dimension of size {size}."
                )
    attrs = {
        "created_at": datetime.now(UTC).isoformat(),
        "inference_library": "numpyro",
        "inference_library_version": numpyro.__version__,
        # Where some of ArviZ's plots look for them.
        "sample_dims": list(sample_dims),
    }
    return xarray.Dataset(named, index, attrs)


def _default_dims(name: str, shape: tuple[int, ...], site: Mapping[str, Any] | None) -> list[str]:
    """Names of plates, then of `infer={"event_dims": ...}`, where they fit; else numbered."""
    own = [f"{name}_dim_{axis}" for axis in range(len(shape))]
    plates = site.get("cond_indep_stack", ()) if site else ()
    event_dims = (site.get("infer") or {}).get("event_dims", ()) if site else ()
    if site and site["type"] == "sample":
        batch_ndim = len(shape) - site["fn"].event_dim
    else:
        # The event shape of a deterministic site is unknown: its plates come first.
        batch_ndim = max((-plate.dim for plate in plates), default=0)
    for plate in plates:
        axis = batch_ndim + plate.dim
        fits = 0 <= axis < len(shape) and shape[axis] == plate.size
        if fits and plate.name not in SAMPLE_DIMS:
            own[axis] = variable_name(plate.name)
    for axis, dim in enumerate(event_dims, start=batch_ndim):
        if 0 <= axis < len(shape):
            own[axis] = dim
    return own
