# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What is known of a run before its first step."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer import NUTS
from numpyro.infer.mcmc import MCMCKernel

from numpyro_scores.infer.discrete.base import DiscreteKernel
from numpyro_scores.infer.kernel import arrays_and_rest
from numpyro_scores.long_runs.arguments import default_chunk_size, lanes_of
from numpyro_scores.long_runs.identity import record_of_run
from numpyro_scores.long_runs.lanes import Compiled, compiled_chains
from numpyro_scores.long_runs.names import Names
from numpyro_scores.long_runs.operations import word_of
from numpyro_scores.long_runs.processes import Processes
from numpyro_scores.long_runs.program import ChainProgram, Keep
from numpyro_scores.training._identity import description


class Wanted(NamedTuple):
    """Steps of warmup, draws of each chain, steps for each draw, and whether warmup is kept."""

    num_warmup: int
    num_draws: int
    thinning: int
    keep_warmup: bool

    @property
    def num_unkept(self) -> int:
        """
        Steps of warmup that no draw is made of. As NumPyro's `MCMC.warmup` has it, each
        `thinning`-th step is kept, counted from the end of warmup: the draws go on from there.
        """
        return self.num_warmup % self.thinning if self.keep_warmup else self.num_warmup

    @property
    def num_warmup_draws(self) -> int:
        """Draws of warmup that are kept of each chain."""
        return self.num_warmup // self.thinning if self.keep_warmup else 0


class Setup(NamedTuple):
    """The settings of a run; `fields` are those to collect, and the sites not to."""

    kernel: MCMCKernel
    wanted: Wanted
    num_chains: int
    num_datasets: int | None
    fields: tuple[tuple[str, ...], tuple[str, ...]]
    keep: Sequence[str] | Callable | None
    chunk_size: int | None
    batch_size: int | None
    processes: Processes


class Batch(NamedTuple):
    """
    Chains, or data sets with their chains, that are drawn at a time.

    - **keys**, **params** - a key and a start for each.
    - **arrays** - what the model is called with.
    - **region** - where they lie in the store, but for the draws.
    """

    keys: Any
    params: Any
    arrays: Any
    region: dict[str, slice]


class Plan(NamedTuple):
    """
    - **programs** - what draws a batch.
    - **batches**, **lanes** - all of them, and which chains or data sets they are.
    - **identity** - what the run is a run of.
    - **sizes** - numbers of chains and, if there are many, of data sets.
    - **chunk_size** - the most draws of a chunk.
    - **kernel** - the copy of the kernel that all is about.
    - **names** - of the variables of its draws.
    - **site_tree** - the structure of what moments are about.
    - **point** - a value of each site, of which only shapes matter; None if sites have no names.
    """

    programs: Compiled
    batches: list[Batch]
    lanes: list[slice]
    identity: dict[str, Any]
    sizes: dict[str, int]
    chunk_size: int
    kernel: MCMCKernel
    names: Names
    site_tree: Any
    point: dict[str, np.ndarray] | None


class Look(NamedTuple):
    """
    A word for what one step computes, and shapes and dtypes of a state, of a draw, of its extra
    fields and of what is kept of it.
    """

    word: str
    state: Any
    samples: Any
    fields: dict[str, Any]
    kept: Any


def looked_at(
    program: ChainProgram, key: Array, params: Any, arrays: list[Array], merge: Callable
) -> Look:
    """Trace a step of one chain."""
    shapes: list[Any] = []

    def step(key, params, arrays):
        found = program.step(key, params, *merge(arrays))
        shapes.append(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), found))
        return found

    closed = jax.make_jaxpr(step)(key, params, arrays)
    start, _, (samples, fields), kept = shapes[0]
    return Look(word_of(closed), start, samples, fields, kept)


def plan_of(setup: Setup, keys: Array, params: Any, data: Any, init_params: Any) -> Plan:
    """
    :param keys: a key for each chain, or for each chain of each data set.
    :param params: where chains start, or None.
    :param data: positional and named arguments of the model.
    :param init_params: `params` as they were given.
    """
    kernel, many = copy.copy(setup.kernel), setup.num_datasets is not None
    wanted = setup.wanted
    arrays, rest, merge = arrays_and_rest(data)
    arrays = [jnp.asarray(x) for x in arrays]
    if isinstance(kernel, DiscreteKernel):
        # It tells by values what depends on what, and finds none within a program.
        kernel.look(*merge([x[0] for x in arrays] if many else arrays))
    keep = keep_of(setup.keep)

    def program(chunk_size: int) -> ChainProgram:
        settings = (kernel.sample_field, *setup.fields, keep, chunk_size)
        return ChainProgram(kernel, wanted.num_warmup, *settings)

    key, start = keys[0], jax.tree.map(lambda x: x[0], params)
    try:
        if many:
            found = looked_at(program(1), key[0], None, [x[0] for x in arrays], merge)
        else:
            found = looked_at(program(1), key, start, arrays, merge)
    except jax.errors.JAXTypeError:  # a model that must see its data, to count groups, say
        if many:
            raise
        merge, arrays = partial(_merged, merge, arrays), []
        found = looked_at(program(1), key, start, arrays, merge)
    size = setup.num_datasets or setup.num_chains
    per_lane = setup.num_chains if many else 1
    own = setup.processes.own(size)
    num_own = own.stop - own.start
    batch_size = (setup.batch_size or size * per_lane) // per_lane // setup.processes.number
    batch_size = max(1, min(num_own, batch_size))
    longest = max(wanted.num_draws, wanted.num_warmup_draws)
    chunk_size = setup.chunk_size or default_chunk_size(
        (found.kept, found.fields), batch_size * per_lane, longest
    )
    mesh = setup.processes.mesh
    kept = setup.keep if callable(setup.keep) else repr(setup.keep)
    programs = compiled_chains(
        setup.kernel,
        program(chunk_size),
        (wanted.num_warmup, repr(setup.fields), kept, chunk_size, mesh, many, *rest),
        found.word,
        merge,
        mesh,
        0 if many else None,
    )
    lanes = lanes_of(own, batch_size)
    sizes = {"chain": setup.num_chains} | ({"dataset": size} if many else {})
    sites = found.kept if keep is None else found.samples
    return Plan(
        programs,
        [_batch(lane, keys, params, arrays, sizes) for lane in lanes],
        lanes,
        _identity(setup, kernel, found, keys, data, init_params),
        sizes,
        chunk_size,
        kernel,
        Names(found.kept, found.fields, isinstance(kernel, NUTS)),
        jax.tree.structure(sites),
        _point(found.samples),
    )


def _identity(
    setup: Setup, kernel: Any, found: Look, keys: Array, data: Any, init_params: Any
) -> dict[str, Any]:
    return record_of_run(
        kernel=type(kernel).__name__,
        program=found.word,
        keys=keys,
        data=data,
        init_params=init_params,
        settings={
            "num_warmup": setup.wanted.num_warmup,
            "num_chains": setup.num_chains,
            "num_datasets": setup.num_datasets,
            "thinning": setup.wanted.thinning,
            "extra_fields": [sorted(names) for names in setup.fields],
            "keep": described(setup.keep),
            "keep_warmup": setup.wanted.keep_warmup,
        },
    )


def _batch(lanes: slice, keys: Array, params: Any, arrays: Any, sizes: dict[str, int]) -> Batch:
    if "dataset" in sizes:
        region = {"chain": slice(0, sizes["chain"]), "dataset": lanes}
        return Batch(keys[lanes], None, [x[lanes] for x in arrays], region)
    return Batch(keys[lanes], jax.tree.map(lambda x: x[lanes], params), arrays, {"chain": lanes})


def _point(samples: Any) -> dict[str, np.ndarray] | None:
    if not isinstance(samples, dict):
        return None
    return {name: np.zeros(x.shape, x.dtype) for name, x in samples.items()}


def _merged(merge: Callable, data: Any, arrays: Any) -> Any:
    """What the model is called with, where its data are part of the program."""
    del arrays
    return merge(data)


def keep_of(keep: Any) -> Keep | None:
    """What is kept of a draw, as a function."""
    if keep is None or callable(keep):
        return keep
    if isinstance(keep, str):
        raise ValueError(f"keep takes a sequence of names or a function: keep=({keep!r},).")
    names = tuple(keep)

    def some(samples):
        if not isinstance(samples, dict) or (missing := {*names} - {*samples}):
            there = sorted(samples) if isinstance(samples, dict) else "no names"
            raise ValueError(
                f"keep names {sorted(missing) if isinstance(samples, dict) else list(names)}, but "
                f"a draw has {there}."
            )
        return {name: samples[name] for name in names}

    return some


def described(keep: Sequence[str] | Callable | None) -> Any:
    """What is kept, in words that are the same in every process."""
    if keep is None:
        return None
    return description(keep) if callable(keep) else sorted(keep)
