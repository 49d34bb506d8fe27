# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The kernel of a run and those within it, alive or as a file remembers them."""

import json
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.infer

import numpyro_scores.infer

# The attribute of ArviZ's posterior that says what drew it.
ATTRIBUTE = "numpyro_scores_run"
# What `diagnose` asks of a kernel's last state, each with an axis for the chains.
STATISTICS = (
    "mean_accept_prob",
    "mean_unresolved",
    "variance_error",
    "swap_accept_prob",
    "num_round_trips",
    "round_trip_rate",
)


class Part(NamedTuple):
    """
    A kernel, or one within another: the replica on the target's rung, a block of Gibbs.

    - **path** - what its fields begin with: `""`, `"block_states.0."`.
    - **kernel** - the kernel, or its class if the run was read from a file.
    - **state** - its last state, with a leading axis for the chains; of a file what is kept of it.
    """

    path: str
    kernel: Any
    state: Any

    @property
    def kind(self) -> type:
        """The class of the kernel."""
        return self.kernel if isinstance(self.kernel, type) else type(self.kernel)

    @property
    def is_alive(self) -> bool:
        """Whether there is a kernel to ask, and not its name alone."""
        return not isinstance(self.kernel, type)

    @property
    def is_adjusted(self) -> bool:
        """Whether a kernel that may leave its Metropolis test out makes it."""
        return getattr(self.kernel if self.is_alive else self.state, "_adjusted", True)


class Record(NamedTuple):
    """
    - **sampler** - name of the kernel, or of the sampler of particles.
    - **parts** - the kernel and those within it.
    - **particles** - what a sampler of particles knows of its run, or None.
    """

    sampler: str
    parts: tuple[Part, ...] = ()
    particles: Mapping[str, Any] | None = None


def parts_of(kernel: Any, state: Any, num_chains: int) -> tuple[Part, ...]:
    """The parts of a kernel after a run, by its last state."""
    if num_chains == 1:
        state = jax.tree.map(lambda x: x[None], state)
    return tuple(_parts("", kernel, state))


def _parts(path: str, kernel: Any, state: Any) -> Iterator[Part]:
    yield Part(path, kernel, state)
    if hasattr(state, "kernel_states"):
        # Each leaf has an axis of the rungs after that of the chains, all but a shared counter.
        cold = jax.tree.map(lambda x: x[:, 0] if x.ndim > 1 else x, state.kernel_states)
        yield from _parts(f"{path}kernel_states.", kernel._kernel, cold)
    blocks = getattr(kernel, "_kernels", ())
    for i, (block, of_block) in enumerate(
        zip(blocks, getattr(state, "block_states", ()), strict=False)
    ):
        yield from _parts(f"{path}block_states.{i}.", block, of_block)


def written(record: Record) -> str:
    """A record as JSON, for an attribute."""
    parts = [
        {
            "path": part.path,
            "kernel": part.kind.__name__,
            "adjusted": bool(part.is_adjusted),
            "statistics": {
                name: np.asarray(getattr(part.state, name)).tolist()
                for name in STATISTICS
                if hasattr(part.state, name)
            },
        }
        for part in record.parts
    ]
    particles = record.particles and dict(record.particles)
    return json.dumps({"sampler": record.sampler, "parts": parts, "particles": particles})


def read(text: str | None) -> Record | None:
    """What :func:`written` has written; None if it is nothing of the kind."""
    try:
        found = json.loads(text or "")
        parts = tuple(
            Part(
                part["path"],
                _kernel_class(part["kernel"]),
                SimpleNamespace(
                    _adjusted=part["adjusted"],
                    **{name: np.asarray(x) for name, x in part["statistics"].items()},
                ),
            )
            for part in found["parts"]
        )
        return Record(found["sampler"], parts, found["particles"])
    except (KeyError, TypeError, ValueError):
        return None


def _kernel_class(name: str) -> type:
    """The class of this name here or in NumPyro, or an empty one for a kernel from elsewhere."""
    for module in (numpyro_scores.infer, numpyro.infer):
        if isinstance(found := getattr(module, name, None), type):
            return found
    return type(name, (), {})
