# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Which chains a program draws at a time, and its compiled form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp

from numpyro_scores.infer.kernel import are_equal
from numpyro_scores.long_runs.program import ChainProgram, Chunk

# Programs that are kept of one kernel.
MAX_PROGRAMS = 8


@dataclass(frozen=True)
class Compiled:
    """
    `start(keys, params, arrays)` and `chunk(keys, params, state, num_draws, num_steps, arrays)`,
    and how they know themselves again.
    """

    settings: tuple
    word: str
    start: Callable
    chunk: Callable


_KEPT: WeakKeyDictionary[Any, list[Compiled]] = WeakKeyDictionary()


def compiled_chains(
    kernel: Any,
    program: ChainProgram,
    settings: tuple,
    word: str,
    merge: Callable[[Any], tuple[tuple, dict]],
    mesh: Any = None,
    many: Any = None,
) -> Compiled:
    """
    The programs of a kernel, compiled at their first call; or those that an earlier run of this
    kernel has compiled, if model and kernel still do the same.

    :param kernel: the kernel as the user has it.
    :param settings: what else the programs are made for.
    :param word: for what a step computes.
    :param merge: makes of arrays what the model is called with.
    :param mesh: devices that share the chains, or None.
    :param many: the axes of the arrays along which data sets lie, or None for one data set.
    """
    kept = _KEPT.setdefault(kernel, [])
    for known in kept:
        if are_equal(settings, known.settings) and word == known.word:
            return known

    def start(keys, params, arrays):
        return program.start(keys, params, *merge(arrays))

    def chunk(keys, params, state, num_draws, num_steps, arrays):
        return program.chunk(keys, params, state, num_draws, num_steps, *merge(arrays))

    if many is not None:
        start = jax.vmap(start, in_axes=(0, 0, many))
        chunk = jax.vmap(chunk, in_axes=(0, 0, 0, None, None, many), out_axes=(0, Chunk(1, 1, 0)))
    if mesh is None:
        new = Compiled(settings, word, jax.jit(start), jax.jit(chunk))
    else:
        new = Compiled(settings, word, *_on_mesh(mesh, start, chunk))
    kept.append(new)
    del kept[:-MAX_PROGRAMS]
    return new


def _on_mesh(mesh: Any, start: Callable, chunk: Callable) -> tuple[Callable, Callable]:
    """Each device draws its own chains, at its own pace."""
    from jax.sharding import NamedSharding, PartitionSpec

    chains, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()
    later = PartitionSpec(None, mesh.axis_names)
    specs_start = (chains, chains, everywhere)
    specs = (chains, chains, chains, everywhere, everywhere, everywhere)
    start = jax.jit(
        jax.shard_map(start, mesh=mesh, in_specs=specs_start, out_specs=chains, check_vma=False)
    )
    out_specs = (chains, Chunk(later, later, chains))
    chunk = jax.jit(
        jax.shard_map(chunk, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False)
    )

    def placed(f, specs):
        def call(*args):
            places = [NamedSharding(mesh, spec) for spec in specs]
            return f(*map(jax.device_put, args, places))

        return call

    return placed(start, specs_start), placed(chunk, specs)


def count(n: int) -> Any:
    """A number as programs take it."""
    return jnp.asarray(n, jnp.int32)
