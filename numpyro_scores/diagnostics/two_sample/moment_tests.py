# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Tests of equal means and of equal variances, for all entries at once."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics._samples import as_flat_pair
from numpyro_scores.diagnostics.two_sample import permutations
from numpyro_scores.diagnostics.two_sample.permutations import HIGHEST

NUM_PERMUTATIONS = 999


class MomentTest(NamedTuple):
    """
    What :func:`mean_test` and :func:`variance_test` return.

    - **statistic** - the largest absolute `t` of the entries, shape `()`.
    - **p_value** - of the hypothesis that no entry differs, shape `()`.
    - **t** - Welch's `t` of each entry, positive where that of `x` is larger, `event_shape`.
    - **p_values** - of the hypothesis that the entry does not differ, adjusted: the probability
      that any of those below a level are false alarms is at most that level, `event_shape`.
    """

    statistic: Array
    p_value: Array
    t: Array
    p_values: Array


def mean_test(
    x: Array, y: Array, *, key: Array, num_permutations: int = NUM_PERMUTATIONS
) -> MomentTest:
    r"""
    Whether the means of two densities agree, entry by entry and altogether: Welch's

    .. math:: t_j = \frac{\bar x_j - \bar y_j}{\sqrt{s_{x,j}^2 / n + s_{y,j}^2 / m}}, \qquad
        \max_j |t_j|,

    compared with its values under random permutations (Westfall & Young 1993, single step; with
    Welch's denominator the level holds in large samples also where the variances differ, Chung &
    Romano 2013). The entries may depend on each other, and be more than the samples. Of an entry
    that is constant `t` is 0, of one that is constant within each set, and differs, infinite.

    :param x: independent samples, shape `(n, *event_shape)`, `n >= 3`.
    :param y: independent samples, shape `(m, *event_shape)`, `m >= 3`.
    :param key: key of the permutations.
    :param num_permutations: number of random permutations.
    :raises ValueError: if samples are too few, not finite or of different shapes.
    """
    check_key("mean_test", key)
    check_count("num_permutations", num_permutations)
    flat = as_flat_pair(x, y, at_least=3)
    return _largest_t(*flat, key, num_permutations, jnp.shape(x)[1:])


def variance_test(
    x: Array, y: Array, *, key: Array, num_permutations: int = NUM_PERMUTATIONS
) -> MomentTest:
    r"""
    Whether the variances of two densities agree, entry by entry and altogether: :func:`mean_test`
    of the squared deviations :math:`(x_i - \bar x)^2` from the mean of their own set (Levene 1960).
    Means may differ. A `t` is positive where the variance of `x` is larger.

    :param x: independent samples, shape `(n, *event_shape)`, `n >= 3`.
    :param y: independent samples, shape `(m, *event_shape)`, `m >= 3`.
    :param key: key of the permutations.
    :param num_permutations: number of random permutations.
    :raises ValueError: if samples are too few, not finite or of different shapes.
    """
    check_key("variance_test", key)
    check_count("num_permutations", num_permutations)
    flat = as_flat_pair(x, y, at_least=3)
    squares = (
        (z - jnp.mean(z, axis=0, keepdims=True)) ** 2 * (len(z) / (len(z) - 1))
        for z in map(_from_zero, flat)
    )
    return _largest_t(*squares, key, num_permutations, jnp.shape(x)[1:])


@partial(jax.jit, static_argnums=(3, 4))
def _largest_t(x, y, key, num_permutations, event_shape):
    labels = permutations.labels(key, len(x), len(y), num_permutations, x.dtype)
    t, rounding = welch_t(_from_zero(jnp.concatenate([x, y])), labels, len(x))
    size = jnp.abs(t)
    largest = jnp.max(size, axis=1)
    each = permutations.reaches(largest[:, None], size[:1], rounding[None])
    return MomentTest(
        largest[0],
        # That of the entry, of those that are largest, whose rounding is largest.
        permutations.p_value(largest, jnp.max(jnp.where(size[0] == largest[0], rounding, 0))),
        t[0].reshape(event_shape),
        jnp.mean(each, axis=0, dtype=x.dtype).reshape(event_shape),
    )


def welch_t(z: Array, labels: Array, n: int) -> tuple[Array, Array]:
    """
    Welch's `t` of each labelling and entry, shape `(num_labellings, d)`: 0 where the means agree,
    infinite where they do not and no set varies. And how far the first may be from one that is
    equal, by rounding, shape `(d,)`.
    """
    m = len(z) - n
    z = z - jnp.mean(z, axis=0, keepdims=True)
    scale = jnp.sqrt(jnp.mean(z**2, axis=0, keepdims=True))
    # In units of the spread, so that what rounding makes of sums of zero is known.
    z = z / jnp.where(scale > 0, scale, 1)
    tiny = permutations.rounding_of_sums(len(z), jnp.ones((), z.dtype))
    sums, squares = (jnp.matmul(labels, x, precision=HIGHEST) for x in (z, z**2))
    total, total_squares = (jnp.sum(x, axis=0, keepdims=True) for x in (z, z**2))
    rest, rest_squares = total - sums, total_squares - squares

    def variance(sums, squares, count):
        variance = squares / count - (sums / count) ** 2
        return jnp.where(variance > tiny * squares / count, variance, 0)

    square = variance(sums, squares, n) / (n - 1) + variance(rest, rest_squares, m) / (m - 1)
    difference = sums / n - rest / m
    difference = jnp.where(jnp.abs(difference) > tiny, difference, 0)
    error = jnp.sqrt(square)
    finite = difference / jnp.where(error > 0, error, 1)
    is_infinite = (error == 0) & (difference != 0)
    t = jnp.where(is_infinite, jnp.sign(difference) * jnp.inf, finite)
    # Of the difference, and of the variances, which are differences of squares.
    smallest = jnp.where(error[0] > 0, error[0], 1)
    rounding = tiny * (1 + jnp.abs(finite[0]) / (min(n, m) * smallest)) / smallest
    return t, rounding


def _from_zero(z):
    # So that a constant entry is 0, and not a rounding error about its mean.
    return z - z[:1]
