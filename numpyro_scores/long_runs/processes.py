# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Several processes of `jax.distributed` that draw one run, each its own chains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """
    Who draws which chains. A process alone is one of one. All but `own` is to be called by every
    process at the same place of the run.

    :param rank: the place of this process among them.
    :param order: their numbers in JAX, by place.
    :param mesh: the devices of this one, or None.
    """

    rank: int = 0
    order: tuple[int, ...] = (0,)
    mesh: Mesh | None = None

    @property
    def number(self) -> int:
        return len(self.order)

    @property
    def is_first(self) -> bool:
        """Whether it is the one that commits."""
        return self.rank == 0

    def own(self, size: int) -> slice:
        """The chains of this process, of `size` in all."""
        each = size // self.number
        return slice(self.rank * each, (self.rank + 1) * each)

    def gathered(self, arrays: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """What each process has, by place. Shapes and dtypes are the same in all of them."""
        if self.number == 1:
            return [list(arrays)]
        from jax.experimental import multihost_utils

        # As bytes: float64 would be rounded on the way.
        arrays = [np.ascontiguousarray(x) for x in arrays]
        sizes = np.cumsum([0, *(x.nbytes for x in arrays)])
        sent = np.concatenate([x.reshape(-1).view(np.uint8) for x in arrays])
        try:
            found = multihost_utils.process_allgather(sent)[list(self.order)]
        except Exception as error:  # of a type that is another one with each way to send
            raise RuntimeError(
                f"Another of the {self.number} processes has ended. What was committed is in the "
                "store: start all of them again, which go on from there."
            ) from error
        return [
            [
                row[start:stop].view(x.dtype).reshape(x.shape)
                for x, start, stop in zip(arrays, sizes[:-1], sizes[1:], strict=True)
            ]
            for row in np.ascontiguousarray(found)
        ]

    def joined(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Arrays with a leading axis of the chains, of all processes one after the other."""
        parts = self.gathered(arrays)
        return (
            parts[0] if len(parts) == 1 else [np.concatenate(x) for x in zip(*parts, strict=True)]
        )

    def together(self, call: Callable[[], T]) -> T:
        """Call in each process; where it fails in one, all of them raise, and none waits for it."""
        if self.number == 1:
            return call()
        error: BaseException | None = None
        found: Any = None
        try:
            found = call()
        except BaseException as raised:
            error = raised
        failed = [bool(flag[0]) for (flag,) in self.gathered([np.array([error is not None])])]
        if error is not None:
            raise error
        if any(failed):
            raise RuntimeError(
                f"Process {self.order[failed.index(True)]} of {self.number} could not go on: see "
                "its own error. What was committed is in the store."
            )
        return found

    def first_then_others(self, call: Callable[[], T]) -> T:
        """Call in the first process, and when that is done in the others."""
        found = self.together(call if self.is_first else lambda: None)
        if self.number > 1:
            others = self.together((lambda: None) if self.is_first else call)
            found = found if self.is_first else others
        return found  # ty: ignore[invalid-explicit-return]


def processes_of(mesh: Mesh | None, num_chains: int) -> Processes:
    """
    The processes whose devices a mesh has.

    :raises ValueError: if it leaves out a process, or has not the same number of devices, side by
        side, of each.
    """
    if mesh is None:
        return Processes()
    me = jax.process_index()
    numbers = [device.process_index for device in mesh.devices.flat]
    order = tuple(dict.fromkeys(numbers))
    if order == (me,):
        return Processes(mesh=mesh)
    each = len(numbers) // len(order)
    if len(order) != jax.process_count() or numbers != [i for i in order for _ in range(each)]:
        raise ValueError(
            f"mesh has devices of the processes {numbers}, of {jax.process_count()}: StoredMCMC "
            "wants as many of each process, side by side, as jax.make_mesh((jax.device_count(),), "
            '("chains",)) has them, or those of this process alone.'
        )
    if num_chains % len(order):
        raise ValueError(f"{num_chains} chains do not divide evenly among {len(order)} processes.")
    own = np.array([device for device in mesh.devices.flat if device.process_index == me])
    return Processes(order.index(me), order, Mesh(own, ("chains",)))
