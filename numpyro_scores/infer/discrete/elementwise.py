# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The log density of a model as a sum over the elements of one of its sites."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.distributions.distribution import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)

# One element that acts on one other stays unseen in a probe with probability 3/4.
NUM_PROBES = 32


class Term(NamedTuple):
    """
    A log density that is a sum of contributions of single elements of a site.

    - **name** - the site of the model whose log density it is.
    - **num_axes** - how many axes of its event stay, which `to_event` would sum over.
    - **block** - the block to whose elements it belongs; None means those of all blocks.
    """

    name: str
    num_axes: int
    block: int | None


class Layout(NamedTuple):
    """
    - **shape** - of a value of the site.
    - **split** - from a value to its blocks.
    - **join** - from its blocks to a value.
    - **random_value** - a value at random, `random_value(key)`.
    """

    shape: tuple[int, ...]
    split: Callable[[Array], tuple[Array, ...]]
    join: Callable[[tuple[Array, ...]], Array]
    random_value: Callable[[Array], Array]


def unsummed_log_prob(site: Any, num_axes: int) -> Array:
    """The log density of a site of a trace, before it is summed over some axes of its event."""
    log_prob = _log_prob(site["fn"], site["value"], num_axes)
    return log_prob if site["scale"] is None else site["scale"] * log_prob


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes that broadcasting has added to `shape`."""
    x = jnp.sum(x, tuple(range(x.ndim - len(shape))))
    return jnp.sum(x, tuple(a for a, n in enumerate(shape) if n == 1), keepdims=True)


def find_terms(
    names: Iterable[str], trace_at: Callable[[Array], Any], layout: Layout
) -> dict[str, Term | None]:
    """
    For each site, how its log density is a sum over the elements of a value; None if it is not.

    Which axes belong together is read from the shapes, aligned at the right as in broadcasting and
    in NumPyro's plates. Whether each entry then depends on its own element alone is tried out: no
    entry may change when only other elements do.

    :param names: sites whose log density depends on the value.
    :param trace_at: the trace of the model at a value.
    """
    found: dict[str, Term | None] = dict.fromkeys(names)
    candidates: list[Term] = []

    def look(key: Array) -> None:
        value = layout.random_value(key)
        shapes: dict[int | None, tuple[int, ...]] = {None: layout.shape}
        blocks = layout.split(value)
        if len(blocks) > 1:
            shapes |= {k: block.shape for k, block in enumerate(blocks)}
        sites = trace_at(value)
        candidates.extend(
            Term(name, num_axes, block)
            for name in names
            for num_axes in range(_num_event_axes(sites[name]["fn"]) + 1)
            for block, shape in shapes.items()
            if _aligns(unsummed_log_prob(sites[name], num_axes).shape, shape)
        )

    jax.eval_shape(look, random.key(0))
    if not candidates:
        return found

    def probe(key: Array) -> list[Array]:
        key_value, key_other, key_moves = random.split(key, 3)
        value, other = layout.random_value(key_value), layout.random_value(key_other)
        moves = random.bernoulli(key_moves, 0.5, layout.shape)
        before, after = trace_at(value), {}
        for block in {term.block for term in candidates}:
            # Blocks that a term should not depend on move whole.
            moving = layout.join(
                tuple(
                    m if block in (None, k) else jnp.ones_like(m)
                    for k, m in enumerate(layout.split(moves))
                )
            )
            after[block] = trace_at(jnp.where(moving, other, value))
        return [
            _unmoved_agree(
                unsummed_log_prob(before[term.name], term.num_axes),
                unsummed_log_prob(after[term.block][term.name], term.num_axes),
                moves if term.block is None else layout.split(moves)[term.block],
            )
            for term in candidates
        ]

    agree = jax.jit(jax.vmap(probe))(random.split(random.key(1), NUM_PROBES))
    for term, in_probes in zip(candidates, agree, strict=True):
        if found[term.name] is None and np.all(in_probes):
            found[term.name] = term
    return found


def _unmoved_agree(before: Array, after: Array, moves: Array) -> Array:
    moved = jnp.broadcast_to(moves, before.shape)
    return jnp.all(moved | jnp.isclose(before, after, rtol=1e-6, atol=0.0, equal_nan=True))


def _aligns(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether `target` broadcasts to `shape`."""
    return len(shape) >= len(target) and all(
        m in (1, n) for n, m in zip(shape[len(shape) - len(target) :], target, strict=True)
    )


def _num_event_axes(fn: Any) -> int:
    """How many axes of its event `to_event` has made of axes of its batch."""
    if isinstance(fn, Independent):
        return fn.reinterpreted_batch_ndims + _num_event_axes(fn.base_dist)
    if isinstance(fn, ExpandedDistribution | MaskedDistribution):
        return _num_event_axes(fn.base_dist)
    return 0


def _log_prob(fn: Any, value: Array, num_axes: int) -> Array:
    if num_axes == 0:
        return fn.log_prob(value)
    if isinstance(fn, Independent):
        n = fn.reinterpreted_batch_ndims
        if num_axes >= n:
            return _log_prob(fn.base_dist, value, num_axes - n)
        return fn.base_dist.to_event(n - num_axes).log_prob(value)
    if isinstance(fn, MaskedDistribution):
        log_prob = _log_prob(fn.base_dist, value, num_axes)
        mask = jnp.reshape(fn._mask, jnp.shape(fn._mask) + (1,) * num_axes)
        return jnp.where(mask, log_prob, 0.0)
    return _log_prob(fn.base_dist, value, num_axes)  # an ExpandedDistribution
