# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What NumPyro and JAX expect of a distribution."""

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.distributions import Distribution, biject_to

from numpyro_scores._validation import check_key
from numpyro_scores.testing.comparisons import assert_close, differ


def check_distribution(
    make: Callable[[], Distribution],
    points: Any = None,
    *,
    key: Array,
    pickled: bool = True,
    tolerance: float = 1e-4,
) -> None:
    """
    Check that a distribution is one of NumPyro:

    - it is a pytree: put together from its leaves it is the same, one made anew is not traced
      again, and stacked ones are mapped;
    - `log_prob` takes batches of any rank, and is the same under `jit` and `vmap`;
    - `expand`, `to_event` and `mask` mean what they say;
    - the support holds the points and the draws, and a continuous one has its bijection;
    - what it draws has the shape asked for, by its key alone, or it says in words that it can't.

    :param make: makes the distribution anew: a function without arguments.
    :param points: in its support, at least 3, shape `(n, *batch_shape, *event_shape)`; None are
        draws.
    :param key: key of all that is random.
    :param pickled: False for one of functions that can't be pickled.
    :param tolerance: relative and absolute, of log densities; the default is for float32.
    :raises AssertionError: if one of these does not hold.
    """
    check_key("check_distribution", key)
    key_points, key_draws = random.split(key)
    d = make()
    _check_leaves(d)
    x = _sample(d, key_points, (4,)) if points is None else points
    x = np.asarray(x)  # of which rows are taken without a program for each
    if len(x) < 3 or x.shape[1:] != d.batch_shape + d.event_shape:
        raise ValueError(
            "points must be at least 3, of shape (n, *batch_shape, *event_shape) = "
            f"(n, {', '.join(map(str, d.batch_shape + d.event_shape))}), got {x.shape}."
        )
    _check_support(d, x)
    log_prob = _check_log_prob(make, x, pickled, tolerance)
    _check_wrapped(d, x, log_prob, tolerance)
    _check_draws(d, key_draws)


def _check_leaves(d: Distribution) -> None:
    leaves, treedef = jax.tree.flatten(d)
    again = treedef.unflatten(leaves)
    assert type(again) is type(d), f"From its leaves it is a {type(again).__name__}."
    for name in ("batch_shape", "event_shape"):
        found, wanted = getattr(again, name), getattr(d, name)
        assert found == wanted, f"From its leaves it has {name} {found}, for {wanted}."
    supports = type(again.support), type(d.support)
    assert supports[0] is supports[1], f"From its leaves it has a support {again.support}."
    assert jax.tree.structure(again) == treedef, "From its leaves it has another structure."


def _check_support(d: Any, x: Any) -> None:
    assert d.event_dim == len(d.event_shape) == d.support.event_dim, (
        f"The event has {len(d.event_shape)} axes, its support {d.support.event_dim}."
    )
    assert bool(d.is_discrete) == bool(d.support.is_discrete), (
        f"is_discrete is {d.is_discrete}, where its support {d.support} says otherwise."
    )
    inside = np.asarray(d.support(x))
    assert inside.shape == (len(x), *d.batch_shape), f"support(x) has shape {inside.shape}."
    assert inside.all(), f"The points {np.flatnonzero(~inside)} are outside of {d.support}."
    assert np.all(d.support(d.support.feasible_like(x[0]))), "feasible_like is not in the support."
    if not d.is_discrete:
        transform = biject_to(d.support)
        back = jax.jit(lambda x: transform(transform.inv(x)))(x)
        assert_close(back, x, "biject_to(support) and back", 1e-3)


def _check_log_prob(
    make: Callable[[], Distribution], x: Any, pickled: bool, tolerance: float
) -> Array:
    """The log densities of the points, which all ways to compute them agree on."""
    traces = []

    @jax.jit
    def log_prob(d, x):
        traces.append(d)
        return d.log_prob(x)

    d = make()
    expected = log_prob(d, x)
    wanted = (len(x), *d.batch_shape)
    assert expected.shape == wanted, f"log_prob has shape {expected.shape}, for {wanted}."
    again = jax.tree.unflatten(jax.tree.structure(d), jax.tree.leaves(d))
    for other, name in ((again, "put together from its leaves"), (make(), "made anew")):
        assert_close(log_prob(other, x), expected, f"log_prob, {name}", tolerance)
    assert len(traces) == 1, (
        "An equal distribution is traced anew: a field that is not a leaf is compared by identity "
        "(a lambda made in __init__, say; jax.tree_util.Partial of one function is equal)."
    )
    one_by_one = np.stack([log_prob(d, point) for point in x])
    assert_close(expected, one_by_one, "log_prob of a batch, for its points", tolerance)
    rows, values = log_prob(d, np.stack([x, x[::-1]])), np.asarray(expected)
    assert_close(rows, np.stack([values, values[::-1]]), "log_prob of rows", tolerance)
    integers = jax.eval_shape(d.log_prob, jax.ShapeDtypeStruct(x.shape, jnp.result_type(int)))
    assert jnp.issubdtype(integers.dtype, jnp.floating), (
        f"log_prob of points with whole numbers is of {integers.dtype}."
    )
    leaves = jax.tree.leaves(d)
    axes, stacked, values = None, d, [expected, expected]
    if leaves and all(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves):
        moved = jax.tree.map(lambda leaf: 1.5 * np.asarray(leaf), d)
        axes, stacked = 0, jax.tree.map(lambda *of_each: np.stack(of_each), d, moved)
        values = [expected, log_prob(moved, x)]
        assert differ(*values), (
            "log_prob does not change with the leaves: it was computed from copies of them."
        )
    mapped = jax.jit(jax.vmap(log_prob, (axes, 0)))(stacked, np.stack([x, x]))
    what = "vmap over points and stacked distributions, for each of them"
    assert_close(mapped, np.stack(values), what, tolerance)
    if pickled:
        copy = pickle.loads(pickle.dumps(d))
        assert jax.tree.structure(copy) == jax.tree.structure(d), (
            "From a pickle it has another structure."
        )
        assert_close(log_prob(copy, x), expected, "log_prob from a pickle", tolerance)
    return expected


def _check_wrapped(d: Distribution, x: Any, log_prob: Array, tolerance: float) -> None:
    n, num_axes = len(x), len(d.batch_shape)
    expanded = d.expand((n, *d.batch_shape))
    shapes = (expanded.batch_shape, expanded.event_shape)
    wanted = ((n, *d.batch_shape), d.event_shape)
    assert shapes == wanted, f"expand gives batch and event shape {shapes}, for {wanted}."
    shown = (np.arange(n) % 2 == 0).reshape(n, *(1,) * num_axes)

    @jax.jit
    def wrapped(d, x):
        expanded = d.expand((n, *d.batch_shape))
        independent = expanded.to_event(1 + num_axes)
        masked = expanded.mask(jnp.broadcast_to(shown, expanded.batch_shape))
        return [other.log_prob(x) for other in (expanded, independent, masked)]

    log_probs = np.asarray(log_prob)
    for found, expected, name in zip(
        wrapped(d, x),
        (log_probs, np.sum(log_probs), np.where(shown, log_probs, 0)),
        ("expand", "to_event, for the sum", "mask, zero where it hides"),
        strict=True,
    ):
        assert_close(found, expected, f"log_prob of {name}", tolerance * n)


@partial(jax.jit, static_argnums=2)
def _sample(d: Any, key: Array, sample_shape: tuple[int, ...]) -> Array:
    return d.sample(key, sample_shape)


def _check_draws(d: Any, key: Array) -> None:
    copies = d.expand((3, *d.batch_shape))
    wanted = (2, *d.batch_shape, *d.event_shape)
    try:
        shape = jax.eval_shape(lambda d: d.sample(key, (2,)), d).shape
        assert shape == wanted, f"Draws of shape {wanted} have shape {shape}."
        drawn = _sample(copies, key, (16,))
    except NotImplementedError as error:
        assert str(error), "sample raises NotImplementedError without a word: say what can draw."
        return
    wanted = (16, 3, *d.batch_shape, *d.event_shape)
    assert drawn.shape == wanted, f"Draws of shape {wanted} have shape {drawn.shape}."
    assert np.all(d.support(drawn)), f"A draw is outside of {d.support}."
    assert differ(drawn[:, 0], drawn[:, 1]), "The copies of expand draw the same values."
    assert differ(drawn[0], drawn[1]), "The draws of one key are all the same."
    again, other = (_sample(copies, k, (16,)) for k in (key, random.split(key)[0]))
    assert_close(again, drawn, "draws of the same key")
    assert differ(other, drawn), "Another key gives the same draws."
