# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Draws in a folder of netCDF files, one for each chunk: for those who have no zarr."""

import bisect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_scores.long_runs.files import StateFiles, Writer, read_json, write_json
from numpyro_scores.long_runs.stores import WARMUP, Arrays, Checkpoint, Region

if TYPE_CHECKING:
    import xarray

RECORD = "run.json"
FIXED = "fixed.nc"
# With what the names of files of draws begin, that are none of warmup.
DRAWS = "draws_"


class NetCDFStore:
    """
    A folder with a netCDF file for each chunk, `draws_000000000.nc` (of warmup that is kept
    `warmup_000000000.nc`), each of which ArviZ and xarray open by itself, and `open` as one. An
    HDF5 file that is written when its process is killed is lost; so none is ever written to a
    second time.

    :param path: the folder, which may not be there yet.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._states = StateFiles(self._path / "sampler_state")
        self._writer = Writer(self._path / ".lock", str(path))
        self._pending: dict[str, dict[str, np.ndarray]] = {}
        self._start = 0
        self._template: xarray.DataTree | None = None

    def load(self) -> Checkpoint | None:
        if self._path.exists() and not self._path.is_dir():
            raise ValueError(
                f"{self._path} is a file: a store is a folder. Give a path that is not there yet."
            )
        file = self._path / RECORD
        is_known = file.is_file() or (self._path / "sampler_state").is_dir()
        if self._path.is_dir() and not is_known and any(self._path.glob("[!.]*")):
            raise ValueError(f"{self._path} holds something else than a run of StoredMCMC.")
        self._writer.hold()
        self._pending = {}
        if not file.is_file():
            return None
        record = read_json(file)
        checkpoint = Checkpoint(record, self._states.read(record["state_file"]))
        for name in set(self._files()) - set(record["files"]):
            (self._path / name).unlink()
        return checkpoint

    def create(
        self, groups: Mapping[str, "xarray.Dataset"], chunk_size: int, checkpoint: Checkpoint
    ) -> None:
        (self._path / "sampler_state").mkdir(parents=True, exist_ok=True)
        self._write(FIXED, groups)
        self.commit(checkpoint, {})

    def append(self, group: str, variables: Arrays, region: Region) -> None:
        template = self._fixed()[group]
        pending = self._pending.setdefault(group, {})
        draws = region["draw"]
        self._start = draws.start
        for name, values in variables.items():
            variable = template[name]
            if name not in pending:
                shape = dict(variable.sizes) | {"draw": draws.stop - draws.start}
                pending[name] = np.empty([shape[dim] for dim in variable.dims], values.dtype)
            own = {**region, "draw": slice(None)}
            pending[name][tuple(own.get(str(dim), slice(None)) for dim in variable.dims)] = values

    def commit(self, checkpoint: Checkpoint, attributes: Mapping[str, Mapping[str, Any]]) -> None:
        if self._pending:
            fixed = self._fixed()
            # All of one commit are of warmup, or none.
            first = next(iter(self._pending))
            draws = np.arange(self._start, checkpoint.length(first))
            groups = {
                group: fixed[group]
                .to_dataset()
                .drop_dims("draw")
                .assign_coords(draw=draws)
                .assign({name: (fixed[group][name].dims, x) for name, x in variables.items()})
                .assign_attrs(attributes.get(group, {}))
                for group, variables in self._pending.items()
            }
            self._write(f"{_kind(first)}{self._start:09d}.nc", groups)
            self._pending = {}
        state = self._states.write(checkpoint)
        record = checkpoint.record | {"state_file": state, "files": self._files()}
        write_json(self._path / RECORD, record | {"attributes": dict(attributes)})
        self._states.remove_others(state)

    def read(self, group: str, name: str, start: int, stop: int) -> np.ndarray:
        import xarray

        kind = _kind(group)
        files = [file for file in self._files() if file.startswith(kind)]
        starts = [int(file.removeprefix(kind).removesuffix(".nc")) for file in files]
        parts = []
        for i in range(max(bisect.bisect_right(starts, start) - 1, 0), len(files)):
            if starts[i] >= stop:
                break
            with xarray.open_dataset(
                self._path / files[i], group=group, engine="h5netcdf"
            ) as dataset:
                own = slice(max(start - starts[i], 0), stop - starts[i])
                parts.append(dataset[name].isel(draw=own).to_numpy())
        return np.concatenate(parts, axis=1)

    def open(self) -> "xarray.DataTree":
        import xarray

        trees = [self._open(file) for file in self._files()]
        groups = {name: group.to_dataset() for name, group in self._fixed().items()}
        attributes = read_json(self._path / RECORD)["attributes"]
        for name in groups:
            parts = [tree[name].to_dataset() for tree in trees if name in tree]
            if parts:
                groups[name] = xarray.concat(parts, "draw", data_vars="minimal")
            groups[name] = groups[name].assign_attrs(attributes.get(name, {}))
        return xarray.DataTree.from_dict(groups)

    def close(self) -> None:
        self._writer.release()

    def _fixed(self) -> "xarray.DataTree":
        if self._template is None:
            self._template = self._open(FIXED).load()
        return self._template

    def _open(self, file: str) -> "xarray.DataTree":
        import xarray

        return xarray.open_datatree(self._path / file, engine="h5netcdf")

    def _files(self) -> list[str]:
        every = (path.name for path in self._path.glob("*.nc"))
        return sorted(name for name in every if name.startswith((DRAWS, WARMUP)))

    def _write(self, name: str, groups: Mapping[str, "xarray.Dataset"]) -> None:
        import xarray

        partial = self._path / f"{name}.partial"
        xarray.DataTree.from_dict(dict(groups)).to_netcdf(partial, engine="h5netcdf")
        partial.replace(self._path / name)


def _kind(group: str) -> str:
    """With what the names of the files begin in which a group's draws are."""
    return WARMUP if group.startswith(WARMUP) else DRAWS
