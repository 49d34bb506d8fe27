# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Draws in a Zarr store, version 3 of the format, as ArviZ and xarray read it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_scores.long_runs.files import StateFiles, Writer, read_json, write_json
from numpyro_scores.long_runs.stores import Arrays, Checkpoint, Region

if TYPE_CHECKING:
    import xarray

# The attribute of the store that says how far it is.
ATTRIBUTE = "numpyro_scores_long_run"
METADATA = "zarr.json"
STATE = ".sampler_state"
# A level of zstd: a third of the time of the default one, for a tenth more of space.
FAST = -5


class ZarrStore:
    """
    A folder that is a Zarr store: `xarray.open_datatree(path, engine="zarr")` opens it, while it
    is written as well. An array is cut along its draws alone.

    Shapes and position stand together in one file, the consolidated metadata, which is replaced at
    each commit: readers and resumed runs see whole chunks only. The state of the sampler lies in a
    hidden folder within, as arrays of NumPy's.

    :param path: the folder, which may not be there yet.
    """

    def __init__(self, path: str | Path):
        try:
            import zarr  # noqa: F401
        except ImportError:
            raise ImportError(
                "A store on disk needs zarr: pip install 'numpyro-scores[store]'."
            ) from None
        self._path = Path(path)
        self._states = StateFiles(self._path / STATE)
        self._writer = Writer(self._path / ".lock", str(path))
        self._arrays: dict[tuple[str, str], Any] = {}
        self._rank, self._number = 0, 1

    def __repr__(self) -> str:
        return f"ZarrStore({str(self._path)!r})"

    def share(self, rank: int, number: int) -> None:
        """
        Be one of `number` processes that write this store at once. Each appends its own chains; the
        first holds the lock, makes the store and commits, when all have appended.
        """
        self._rank, self._number = rank, number

    def load(self) -> Checkpoint | None:
        if self._path.exists() and not self._path.is_dir():
            raise ValueError(
                f"{self._path} is a file: a store is a folder. Give a path that is not there yet."
            )
        is_new = not self._path.exists() or not any(self._path.iterdir())
        root = self._path / METADATA
        left_over = not is_new and all(
            path.name == STATE or path.name.startswith(".lock") for path in self._path.iterdir()
        )
        record = None
        if root.is_file():
            record = read_json(root)["attributes"].get(ATTRIBUTE)
        if record is None and not (is_new or left_over or (self._path / STATE).is_dir()):
            raise ValueError(
                f"{self._path} holds something else than a run of StoredMCMC: give a path that is "
                "not there yet, or remove the folder."
            )
        if self._rank == 0:
            self._writer.hold()
        self._arrays = {}
        if record is None:
            return None
        checkpoint = Checkpoint(record, self._states.read(record["state_file"]))
        for (group, _), array in self._growing():
            self._check_shared(array)
            # A killed process may have made it longer.
            if self._rank == 0 and array.shape[_draw_axis(array)] != checkpoint.length(group):
                _resize(array, checkpoint.length(group))
        return checkpoint

    def create(
        self, groups: Mapping[str, "xarray.Dataset"], chunk_size: int, checkpoint: Checkpoint
    ) -> None:
        import zarr
        from zarr.codecs import ZstdCodec

        # Until the attribute is there, what a killed process has made is nothing.
        self._path.mkdir(parents=True, exist_ok=True)
        (self._path / STATE).mkdir(exist_ok=True)
        root = zarr.open_group(str(self._path), mode="a", zarr_format=3)
        for name, dataset in groups.items():
            group = root.create_group(name, overwrite=True, attributes=dict(dataset.attrs))
            for key, variable in dataset.variables.items():
                sizes = {"draw": chunk_size}
                if "draw" in variable.dims and "chain" in variable.dims:
                    sizes["chain"] = variable.sizes["chain"] // self._number
                shape = [sizes.get(str(dim), max(size, 1)) for dim, size in variable.sizes.items()]
                array = group.create_array(
                    str(key),
                    shape=variable.shape,
                    chunks=tuple(shape),
                    dtype=variable.dtype,
                    # Draws are noise: what compresses are those that a rejection has repeated.
                    compressors=ZstdCodec(level=FAST),
                    dimension_names=[str(dim) for dim in variable.dims],
                    attributes=dict(variable.attrs),
                )
                if variable.size:
                    array[...] = variable.to_numpy()
        self._arrays = {}
        self.commit(checkpoint, {})

    def append(self, group: str, variables: Arrays, region: Region) -> None:
        for name, values in variables.items():
            array = self._array(group, name)
            axis = _draw_axis(array)
            if array.shape[axis] < region["draw"].stop:
                _resize(array, region["draw"].stop)
            dims = array.metadata.dimension_names
            array[tuple(region.get(dim, slice(None)) for dim in dims)] = values

    def commit(self, checkpoint: Checkpoint, attributes: Mapping[str, Mapping[str, Any]]) -> None:
        for (group, name), array in self._growing():
            length, n = array.shape[0], checkpoint.length(group)
            if name == "draw" and length < n:
                _resize(array, n)
                array[length:] = np.arange(length, n)
        file = self._states.write(checkpoint)
        metadata: dict[str, Any] = {}
        for path in sorted(self._path.glob(f"*/{METADATA}")):
            name, content = path.parent.name, read_json(path)
            content["attributes"] |= attributes.get(name, {})
            content.pop("consolidated_metadata", None)
            arrays = {
                array.parent.name: read_json(array)
                for array in sorted(path.parent.glob(f"*/{METADATA}"))
            }
            metadata[name] = content
            metadata |= {f"{name}/{key}": array for key, array in arrays.items()}
            write_json(path, content | _consolidated(arrays))
        root = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {ATTRIBUTE: checkpoint.record | {"state_file": file}},
        }
        write_json(self._path / METADATA, root | _consolidated(metadata))
        self._states.remove_others(file)

    def read(self, group: str, name: str, start: int, stop: int) -> np.ndarray:
        array = self._array(group, name)
        dims = array.metadata.dimension_names
        index = tuple(slice(start, stop) if dim == "draw" else slice(None) for dim in dims)
        return np.asarray(array[index])

    def open(self) -> "xarray.DataTree":
        import xarray

        return xarray.open_datatree(self._path, engine="zarr")

    def close(self) -> None:
        self._writer.release()

    def _array(self, group: str, name: str) -> Any:
        import zarr

        if (group, name) not in self._arrays:
            self._arrays[group, name] = zarr.open_array(
                str(self._path), path=f"{group}/{name}", mode="r+"
            )
        return self._arrays[group, name]

    def _check_shared(self, array: Any) -> None:
        """Raise if a file of the array would be written by two processes."""
        dims = array.metadata.dimension_names
        if self._number == 1 or "chain" not in dims:
            return
        axis = dims.index("chain")
        if array.shape[axis] // self._number % array.chunks[axis]:
            raise ValueError(
                f"{self._path} has {array.chunks[axis]} of {array.shape[axis]} chains in a file, "
                f"which {self._number} processes cannot write at once: go on with as many "
                "processes as have made it, or with one."
            )

    def _growing(self) -> Iterator[tuple[tuple[str, str], Any]]:
        """The arrays that have draws."""
        for path in sorted(self._path.glob(f"*/*/{METADATA}")):
            key = (path.parent.parent.name, path.parent.name)
            array = self._array(*key)
            if "draw" in (array.metadata.dimension_names or ()):
                yield key, array


def _consolidated(metadata: dict[str, Any]) -> dict[str, Any]:
    """What is within a group, beside what the group is."""
    inline = {"kind": "inline", "must_understand": False, "metadata": metadata}
    return {"consolidated_metadata": inline}


def _draw_axis(array: Any) -> int:
    return array.metadata.dimension_names.index("draw")


def _resize(array: Any, num_draws: int) -> None:
    shape = list(array.shape)
    shape[_draw_axis(array)] = num_draws
    array.resize(tuple(shape))
