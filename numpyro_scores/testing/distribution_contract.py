# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What NumPyro and JAX expect of a distribution."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.distributions import Distribution, biject_to

from numpyro_scores._validation import check_key
from numpyro_scores.testing.comparisons import assert_close, differ


def check_distribution(
    d: Distribution,
    points: Any = None,
    *,
    key: Array,
    pickled: bool = True,
    tolerance: float = 1e-4,
) -> None:
    """
    Check that a distribution is one of NumPyro:

    - `log_prob` takes batches of any rank and is the same under `jit` and `vmap`, and with the
      distribution as an argument, or as many distributions stacked;
    - it is a pytree: put together from its leaves it is the same, and an equal one is not
      traced anew;
    - `expand`, `to_event` and `mask` mean what they say, the gradient of what is hidden included;
    - the support holds the points and the draws, and a continuous one has its bijection;
    - what it draws has the shape asked for, by its key alone, or it says in words that it can't.

    :param d: the distribution.
    :param points: in its support, at least 3, shape `(n, *batch_shape, *event_shape)`; None are
        draws.
    :param key: key of all that is random.
    :param pickled: False for one of functions that can't be pickled.
    :param tolerance: relative and absolute, of log densities; the default is for float32.
    :raises AssertionError: if one of these does not hold.
    """
    check_key("check_distribution", key)
    key_points, key_draws = random.split(key)
    x = d.sample(key_points, (4,)) if points is None else points
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if len(x) < 3 or x.shape[1:] != d.batch_shape + d.event_shape:
        raise ValueError(
            "points must be at least 3, of shape (n, *batch_shape, *event_shape) = "
            f"(n, {', '.join(map(str, d.batch_shape + d.event_shape))}), got {x.shape}."
        )
    log_prob = _log_prob(d, x)
    _check_density(d, x, log_prob, tolerance)
    _check_pytree(d, x, log_prob, pickled, tolerance)
    _check_wrapped(d, x, log_prob, tolerance)
    _check_support(d, x)
    _check_draws(d, key_draws)


@jax.jit
def _log_prob(d: Distribution, x: Array) -> Array:
    return d.log_prob(x)


def _check_density(d: Distribution, x: Any, log_prob: Array, tolerance: float) -> None:
    assert d.event_dim == len(d.event_shape) == d.support.event_dim, (
        f"The event has {len(d.event_shape)} axes, its support {d.support.event_dim}."
    )
    wanted = (len(x), *d.batch_shape)
    assert log_prob.shape == wanted, f"log_prob has shape {log_prob.shape}, for {wanted}."
    one_by_one = jnp.stack([_log_prob(d, point) for point in x])
    assert_close(log_prob, one_by_one, "log_prob of a batch, for its points", tolerance)
    rows = _log_prob(d, jnp.stack([x, x[::-1]]))
    assert_close(rows, jnp.stack([log_prob, log_prob[::-1]]), "log_prob of rows", tolerance)
    mapped = jax.jit(jax.vmap(d.log_prob))(x)
    assert_close(mapped, log_prob, "vmap of log_prob, for a batch", tolerance)
    integers = jax.eval_shape(d.log_prob, jnp.ones(x.shape, int))
    assert jnp.issubdtype(integers.dtype, jnp.floating), (
        f"log_prob of points with whole numbers is of {integers.dtype}."
    )


def _check_pytree(
    d: Distribution, x: Any, log_prob: Array, pickled: bool, tolerance: float
) -> None:
    leaves, treedef = jax.tree.flatten(d)
    again = treedef.unflatten(leaves)
    assert type(again) is type(d), f"From its leaves it is a {type(again).__name__}."
    assert jax.tree.structure(again) == treedef, "From its leaves it has another structure."
    for name in ("batch_shape", "event_shape", "support"):
        found, wanted = getattr(again, name), getattr(d, name)
        if name == "support":
            found, wanted = type(found), type(wanted)
        assert found == wanted, f"From its leaves it has {name} {found}, for {wanted}."
    traces = []

    @jax.jit
    def compiled(d, x):
        traces.append(d)
        return d.log_prob(x)

    others = [again, jax.tree.map(jnp.array, again)]
    for other in [d, *others]:
        found = compiled(other, x)
        assert_close(found, log_prob, "log_prob, put together from its leaves", tolerance)
    assert len(traces) == 1, (
        "An equal distribution is traced anew: a field that is not a leaf compares by identity (a "
        "lambda made in __init__, say; jax.tree_util.Partial of a function of the module does not)."
    )
    inexact = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    if leaves and all(inexact):
        moved = jax.tree.map(lambda leaf: 1.5 * leaf, d)
        other = compiled(moved, x)
        assert differ(other, log_prob), (
            "log_prob does not change with the leaves: it was computed from copies of them."
        )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), d, moved)
        found = jax.vmap(_log_prob, (0, None))(stacked, x)
        what = "vmap over stacked distributions, for each of them"
        assert_close(found, jnp.stack([log_prob, other]), what, tolerance)
    if pickled:
        copy = pickle.loads(pickle.dumps(d))
        assert jax.tree.structure(copy) == treedef, "From a pickle it has another structure."
        assert_close(_log_prob(copy, x), log_prob, "log_prob from a pickle", tolerance)


def _check_wrapped(d: Distribution, x: Any, log_prob: Array, tolerance: float) -> None:
    n = len(x)
    expanded = d.expand((n, *d.batch_shape))
    shapes = (expanded.batch_shape, expanded.event_shape)
    wanted = ((n, *d.batch_shape), d.event_shape)
    assert shapes == wanted, f"expand gives batch and event shape {shapes}, for {wanted}."
    assert_close(_log_prob(expanded, x), log_prob, "log_prob of expand", tolerance)
    independent = expanded.to_event(1 + len(d.batch_shape))
    total = _log_prob(independent, x)
    assert_close(total, jnp.sum(log_prob), "log_prob of to_event, for the sum", tolerance * n)

    shown = (np.arange(n) % 2 == 0).reshape(n, *(1,) * len(d.batch_shape))
    wanted = jnp.where(shown, log_prob, 0)
    masked = expanded.mask(shown)
    assert_close(_log_prob(masked, x), wanted, "log_prob of mask", tolerance)
    if not (d.is_discrete or jnp.issubdtype(x.dtype, jnp.integer)):
        all_axes = shown.reshape(n, *(1,) * (x.ndim - 1))
        value, grad = _total_and_gradient(masked, jnp.where(all_axes, x, jnp.nan))
        assert_close(value, jnp.sum(wanted), "log_prob of mask, NaN where hidden", tolerance * n)
        alone = jnp.where(all_axes, _total_and_gradient(d, x)[1], 0)
        assert_close(grad, alone, "gradient of mask, zero where hidden", tolerance)


@jax.jit
def _total_and_gradient(d: Distribution, x: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda x: jnp.sum(d.log_prob(x)))(x)


def _check_support(d: Distribution, x: Any) -> None:
    assert bool(d.is_discrete) == bool(d.support.is_discrete), (
        f"is_discrete is {d.is_discrete}, where its support {d.support} says otherwise."
    )
    inside = np.asarray(d.support(x))
    assert inside.shape == (len(x), *d.batch_shape), f"support(x) has shape {inside.shape}."
    assert inside.all(), f"The points {np.flatnonzero(~inside)} are outside of {d.support}."
    assert np.all(d.support(d.support.feasible_like(x[0]))), "feasible_like is not in the support."
    if not d.is_discrete:
        transform = biject_to(d.support)
        free = transform.inv(x)
        assert_close(transform(free), x, "biject_to(support) and back", 1e-3)


def _check_draws(d: Distribution, key: Array) -> None:
    try:
        drawn = d.sample(key, (2,))
    except NotImplementedError as error:
        assert str(error), "sample raises NotImplementedError without a word: say what can draw."
        return
    wanted = (2, *d.batch_shape, *d.event_shape)
    assert drawn.shape == wanted, f"sample(key, (2,)) has shape {drawn.shape}, for {wanted}."
    assert np.all(d.support(drawn)), f"A draw is outside of {d.support}."
    compiled = jax.jit(lambda d, key: d.sample(key, (2,)))
    assert_close(compiled(d, key), drawn, "sample under jit", 1e-3)
    many = d.expand((3, *d.batch_shape)).sample(key, (16,))
    wanted = (16, 3, *d.batch_shape, *d.event_shape)
    assert many.shape == wanted, f"The draws of expand have shape {many.shape}, for {wanted}."
    assert differ(many[:, 0], many[:, 1]), "The copies of expand draw the same values."
    other = d.expand((3, *d.batch_shape)).sample(random.split(key)[0], (16,))
    assert differ(many, other), "Another key gives the same draws."
