# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A kernel of NumPyro's as two compiled functions: where chains start, and their next chunk."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import nested_attrgetter

from numpyro_scores._words import is_key
from numpyro_scores.infer.kernel import ChainKernel

Keep = Callable[[Any], Any]


class Moments(NamedTuple):
    """
    Of the draws of one chunk, leaf by leaf: a point of reference, the mean of the differences from
    it and the sum of squares about the mean, each of the shape of one draw. Differences from a
    draw lose no digits where the mean is large beside the spread.
    """

    reference: Any
    mean: Any
    squares: Any


class Chunk(NamedTuple):
    """
    - **samples** - what is kept of the draws, a leading axis of `chunk_size`.
    - **fields** - the extra fields, likewise.
    - **moments** - of all sites, where not all of them are kept; else None.
    """

    samples: Any
    fields: Any
    moments: Any


class ChainProgram:
    """
    The start of chains and a chunk of their draws as pure functions of keys, state and data, all
    with a leading axis of the chains.

    NumPyro's kernels make in `init` the functions that `sample` calls, and some of these remember
    what `init` was given. So every program calls `init` as well; what it returns is not used, and
    no code is made for it.

    :param kernel: a kernel that this program has to itself.
    :param sample_field: the field of the state that is a draw.
    :param fields: the other fields to collect.
    :param removed: sites that are not.
    :param keep: what of a draw is kept, or None for all of it.
    :param chunk_size: the most draws of a chunk.
    """

    def __init__(
        self,
        kernel: MCMCKernel,
        num_warmup: int,
        sample_field: str,
        fields: tuple[str, ...],
        removed: tuple[str, ...],
        keep: Keep | None,
        chunk_size: int,
    ):
        self.kernel = kernel
        self.num_warmup = num_warmup
        self.sample_field = sample_field
        self.fields = fields
        self.removed = removed
        self.keep = keep
        self.chunk_size = chunk_size

    def start(self, keys: Array, params: Any, args: tuple, kwargs: dict) -> Any:
        """The states of chains before their first step."""
        if len(keys) == 1:
            return _added(self._start_chain(keys[0], _first(params), args, kwargs))
        return jax.vmap(lambda key, own: self._start_chain(key, own, args, kwargs))(keys, params)

    def chunk(
        self,
        keys: Array,
        params: Any,
        state: Any,
        num_draws: Array,
        num_steps: Array,
        args: tuple,
        kwargs: dict,
    ) -> tuple[Any, Chunk]:
        """
        The state after `num_draws` draws, at most `chunk_size`, of `num_steps` steps each, and the
        draws, shape `(chunk_size, chains, ...)`, of which the first `num_draws` mean something.
        Both numbers are values of the program: of a chain it does not depend on how its steps are
        cut into chunks.
        """
        if len(keys) == 1:
            self._start_chain(keys[0], _first(params), args, kwargs)
            state, chunk = self._loop(
                _first(state), num_draws, num_steps, args, kwargs, self.kernel.sample, lambda f: f
            )
            samples, fields = (jax.tree.map(lambda x: x[:, None], part) for part in chunk[:2])
            return _added(state), Chunk(samples, fields, _added(chunk.moments))
        if isinstance(self.kernel, ChainKernel):
            # It knows which fields all chains share, and need not run both branches of a condition.
            self.start(keys, params, args, kwargs)
            sample = self.kernel._sample_chains
            return self._loop(state, num_draws, num_steps, args, kwargs, sample, jax.vmap)

        def of_chain(key, own, state):
            self._start_chain(key, own, args, kwargs)
            return self._loop(
                state, num_draws, num_steps, args, kwargs, self.kernel.sample, lambda f: f
            )

        axes = (0, Chunk(1, 1, 0))
        return jax.vmap(of_chain, out_axes=axes)(keys, params, state)

    def step(self, key: Array, params: Any, args: tuple, kwargs: dict) -> Any:
        """The start of one chain, and a step: all that a run is made of."""
        start = self._start_chain(key, params, args, kwargs)
        state = self.kernel.sample(start, args, kwargs)
        collect = self._collector(args, kwargs)
        return start, _strong(state), collect(state), self._kept(collect(state)[0])

    def _start_chain(self, key: Array, params: Any, args: tuple, kwargs: dict) -> Any:
        return _strong(self.kernel.init(key, self.num_warmup, params, args, kwargs))

    def _collector(self, args: tuple, kwargs: dict) -> Callable[[Any], tuple[Any, dict]]:
        postprocess = self.kernel.postprocess_fn(args, kwargs)

        def collect(state):
            samples = postprocess(nested_attrgetter(self.sample_field)(state))
            if self.removed:
                samples = {name: x for name, x in samples.items() if name not in self.removed}
            fields = {name: _field(state, name) for name in self.fields}
            return jax.tree.map(_numbers, (samples, fields))

        return collect

    def _kept(self, samples: Any) -> Any:
        return samples if self.keep is None else self.keep(samples)

    def _loop(self, state, num_draws, num_steps, args, kwargs, sample, over_chains):
        """Draws one after another; `over_chains` maps a function of one chain's state."""
        collect = over_chains(self._collector(args, kwargs))
        keep = over_chains(self._kept)

        def draw(i, carry):
            state, samples, fields, moments = carry
            state = lax.fori_loop(
                0, num_steps, lambda _, state: _strong(sample(state, args, kwargs)), state
            )
            everything, new_fields = collect(state)
            samples, fields = jax.tree.map(
                lambda all_of_it, x: all_of_it.at[i].set(x),
                (samples, fields),
                (keep(everything), new_fields),
            )
            if moments is not None:
                moments = _with(moments, everything, i)
            return state, samples, fields, moments

        def collected(state):
            everything, fields = collect(state)
            return keep(everything), fields, everything

        kept, fields, everything = jax.eval_shape(collected, state)
        empty = jax.tree.map(lambda x: jnp.zeros((self.chunk_size, *x.shape), x.dtype), kept)
        no_fields = jax.tree.map(lambda x: jnp.zeros((self.chunk_size, *x.shape), x.dtype), fields)
        moments = None
        if self.keep is not None:
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _real(x.dtype)), everything)
            moments = Moments(zeros, zeros, zeros)
        carry = (state, empty, no_fields, moments)
        state, *chunk = lax.fori_loop(0, num_draws, draw, carry)
        return state, Chunk(*chunk)


def _field(state: Any, name: str) -> Any:
    """What is at a name such as `adapt_state.step_size`."""
    try:
        return nested_attrgetter(name)(state)
    except (AttributeError, KeyError, TypeError) as error:
        there = ", ".join(getattr(state, "_fields", ())) or "no fields"
        raise ValueError(
            f"extra_fields names {name!r}, but a {type(state).__name__}, the state of the kernel, "
            f"has {there}."
        ) from error


def _numbers(x: Array) -> Array:
    """An array, or the numbers of a key, which stores know."""
    return random.key_data(x) if isinstance(x, Array) and is_key(x) else x


def _with(moments: Moments, draw: Any, i: Array) -> Moments:
    """Moments with draw number `i` added (Welford 1962)."""
    draw = jax.tree.map(lambda x: x.astype(_real(x.dtype)), draw)
    reference = jax.tree.map(lambda r, x: jnp.where(i == 0, x, r), moments.reference, draw)
    difference = jax.tree.map(lambda x, r: x - r, draw, reference)
    mean = jax.tree.map(lambda m, d: m + (d - m) / (i + 1), moments.mean, difference)
    squares = jax.tree.map(
        lambda s, d, before, after: s + (d - before) * (d - after),
        moments.squares,
        difference,
        moments.mean,
        mean,
    )
    return Moments(reference, mean, squares)


def _real(dtype: Any) -> Any:
    """The type of a mean of such values."""
    return jnp.promote_types(dtype, jnp.float32)


def _strong(tree: Any) -> Any:
    """The same arrays, without the weak types that would make other programs of one function."""
    return jax.tree.map(_strong_leaf, tree)


def _strong_leaf(x: Any) -> Array:
    if jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key):
        return x
    if not isinstance(x, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
        raise TypeError(
            f"The state of the kernel holds a {type(x).__name__}: StoredMCMC writes states to "
            "disk, and takes arrays alone."
        )
    return lax.convert_element_type(x, jnp.result_type(x))


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


def _added(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[None], tree)
