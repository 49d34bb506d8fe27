# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a storage of draws has to do, and the one that keeps them in memory."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import xarray

Arrays = dict[str, np.ndarray]
Region = Mapping[str, slice]
# With what the names of the groups of warmup begin.
WARMUP = "warmup_"


class Checkpoint(NamedTuple):
    """
    All that a run needs to go on.

    - **record** - what JSON can hold: how far the run is, and what it is a run of.
    - **arrays** - the state of the sampler, by name.
    """

    record: dict[str, Any]
    arrays: Arrays

    @property
    def num_draws(self) -> int:
        """Draws of each chain that are committed."""
        return int(self.record["num_draws"])

    def length(self, group: str) -> int:
        """Draws of each chain that are committed of a group, that of warmup or the other."""
        if group.startswith(WARMUP):
            # A store of before these groups has none.
            return int(self.record.get("num_warmup_draws", 0))
        return self.num_draws


class DrawStore(Protocol):
    """
    A storage of draws: what :class:`~numpyro_scores.StoredMCMC` takes as `store=`. Groups and
    variables have ArviZ's names; a variable has the axes `(chain, draw, ...)`. Where warmup is
    kept, it has groups of its own, `warmup_posterior` and `warmup_sample_stats`, complete before
    the first draw is appended to the others; all of one commit are of warmup, or none.

    A process may be killed between any two lines. So draws are appended first, and do not count;
    `commit` makes them and the state of the sampler valid, both at once or neither.

    A store that several processes may write at once (`jax.distributed`) has one method more,
    `share(rank, number)`, which tells it so before `load`. The first process alone creates and
    commits; each appends its own chains.
    """

    def load(self) -> Checkpoint | None:
        """
        What was committed last; None for a new store.

        :raises ValueError: if there is something else at this place.
        :raises RuntimeError: if another process writes this store.
        """
        ...

    def create(
        self, groups: Mapping[str, "xarray.Dataset"], chunk_size: int, checkpoint: Checkpoint
    ) -> None:
        """
        Make a new store, and commit it.

        :param groups: the groups; a variable of draws has none of them yet, but its dimensions,
            coordinates and dtype. A group without the dimension `draw` is complete.
        :param chunk_size: the most draws that are appended at a time.
        """
        ...

    def append(self, group: str, variables: Arrays, region: Region) -> None:
        """
        Write draws after those that are committed, or over others that are not.

        :param variables: by name, shape `(chains, draws, ...)`.
        :param region: where they belong along `chain`, `draw` and, of many data sets, `dataset`.
        """
        ...

    def commit(self, checkpoint: Checkpoint, attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """
        Make the first `checkpoint.length(group)` draws of each group valid.

        :param attributes: of the groups, to be set.
        """
        ...

    def read(self, group: str, name: str, start: int, stop: int) -> np.ndarray:
        """Draws `start` to `stop` of a variable, shape `(chains, stop - start, ...)`."""
        ...

    def open(self) -> "xarray.DataTree":
        """The groups with what is committed, read only when it is needed."""
        ...

    def close(self) -> None:
        """Let go of the store; `read` and `open` still work."""
        ...


class MemoryStore:
    """Draws in the memory of the host, for a run that is not to be resumed."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        self._checkpoint: Checkpoint | None = None
        self._whole: dict[tuple[str, str], np.ndarray] = {}

    def load(self) -> Checkpoint | None:
        return self._checkpoint

    def create(self, groups: Any, chunk_size: int, checkpoint: Checkpoint) -> None:
        del groups, chunk_size
        self._checkpoint = checkpoint

    def append(self, group: str, variables: Arrays, region: Region) -> None:
        draws = region["draw"]
        for name, values in variables.items():
            shape = list(values.shape)
            for axis, dim in ((0, "chain"), (2, "dataset")):
                if dim in region:
                    shape[axis] = max(shape[axis], self._sizes[dim])
            pieces = self._pieces.setdefault((group, name), {})
            if draws.start not in pieces or pieces[draws.start].shape != tuple(shape):
                pieces[draws.start] = np.empty(shape, values.dtype)
            index = [region["chain"], slice(None)]
            index += [region["dataset"]] if "dataset" in region else []
            pieces[draws.start][tuple(index)] = values
            self._whole.pop((group, name), None)

    def commit(self, checkpoint: Checkpoint, attributes: Any) -> None:
        del attributes
        self._checkpoint = checkpoint

    def read(self, group: str, name: str, start: int, stop: int) -> np.ndarray:
        key = (group, name)
        if key not in self._whole:
            pieces = self._pieces[key]
            self._whole[key] = np.concatenate([pieces[i] for i in sorted(pieces)], axis=1)
            # One copy, not two.
            self._pieces[key] = {0: self._whole[key]}
        return self._whole[key][:, start:stop]

    def open(self) -> Any:
        raise TypeError(
            "The draws of this run are in memory: ns.to_inference_data(mcmc) makes an ArviZ object "
            'of them. With StoredMCMC(store="run.zarr") they are in a store that can be opened.'
        )

    def close(self) -> None:
        pass

    @property
    def _sizes(self) -> dict[str, int]:
        assert self._checkpoint is not None
        return self._checkpoint.record["sizes"]
