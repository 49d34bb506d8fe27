# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The log density of a model as a sum over the elements of one of its sites."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores.distributions._wrapped import num_event_axes
from numpyro_scores.infer.discrete.model_trace import unsummed_log_prob

# One element that acts on one other stays unseen in a probe with probability 3/4.
NUM_PROBES = 32
# Numbers that are the same but for rounding differ by a few units in the last place.
NUM_ULPS = 8


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


def find_terms(
    names: Iterable[str], trace_at: Callable[[Array], Any], layout: Layout
) -> dict[str, Term | None]:
    """
    For each site, how its log density is a sum over the elements of a value; None if it is not.

    Which axes belong together is read from the shapes, aligned at the right as in broadcasting and
    in NumPyro's plates. Whether each entry then depends on its own element alone is tried out: no
    entry may change when only other elements do, but for rounding. Where rounding is not small
    beside what the element itself changes, a change counts as one.

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
            for num_axes in range(num_event_axes(sites[name]["fn"]) + 1)
            for block, shape in shapes.items()
            if _aligns(unsummed_log_prob(sites[name], num_axes).shape, shape)
        )

    jax.eval_shape(look, random.key(0))
    if not candidates:
        return found

    def probe(key: Array) -> list[Probe]:
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
            _probe(
                unsummed_log_prob(before[term.name], term.num_axes),
                unsummed_log_prob(after[term.block][term.name], term.num_axes),
                moves if term.block is None else layout.split(moves)[term.block],
            )
            for term in candidates
        ]

    @jax.jit
    def depend_on_others(keys: Array) -> list[Array]:
        return [_depends_on_others(probes) for probes in jax.vmap(probe)(keys)]

    depends = depend_on_others(random.split(random.key(1), NUM_PROBES))
    for term, does in zip(candidates, depends, strict=True):
        if found[term.name] is None and not does:
            found[term.name] = term
    return found


class Probe(NamedTuple):
    """
    What has become of each entry of a log density when some elements moved.

    - **change** - how much it changed, if its own element did not move.
    - **rounding** - how much of that rounding may be.
    - **low**, **high** - its smaller and its larger value.
    """

    change: Array
    rounding: Array
    low: Array
    high: Array


def _probe(before: Array, after: Array, moves: Array) -> Probe:
    moved = jnp.broadcast_to(moves, before.shape)
    same = moved | (before == after) | (jnp.isnan(before) & jnp.isnan(after))
    change = jnp.abs(jnp.where(same, 0.0, after) - jnp.where(same, 0.0, before))
    finite = jnp.isfinite(before) & jnp.isfinite(after)
    low = jnp.where(finite, jnp.minimum(before, after), 0.0)
    high = jnp.where(finite, jnp.maximum(before, after), 0.0)
    level = jnp.maximum(jnp.abs(low), jnp.abs(high))
    return Probe(
        jnp.where(jnp.isnan(change), jnp.inf, change),  # one of the two was NaN
        NUM_ULPS * jnp.finfo(before.dtype).eps * level,
        jnp.where(finite, low, jnp.inf),
        jnp.where(finite, high, -jnp.inf),
    )


def _depends_on_others(probes: Probe) -> Array:
    change, rounding = jnp.max(probes.change, axis=0), jnp.max(probes.rounding, axis=0)
    spread = jnp.max(probes.high, axis=0) - jnp.min(probes.low, axis=0)
    # What rounding changes must be little beside what the element itself does, or it hides more.
    is_rounding = (change <= rounding) & (rounding <= spread / 100)
    return jnp.any((change > 0) & ~is_rounding)


def _aligns(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether `target` broadcasts to `shape`."""
    return len(shape) >= len(target) and all(
        m in (1, n) for n, m in zip(shape[len(shape) - len(target) :], target, strict=True)
    )
