# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Tests of equal means and of equal variances, for all entries at once."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics._samples import as_flat_pair
from numpyro_scores.diagnostics.two_sample import permutations

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
    Romano 2013). The entries may depend on each other, and be more than the samples.

    :param x: independent samples, shape `(n, *event_shape)`, `n >= 3`.
    :param y: independent samples, shape `(m, *event_shape)`, `m >= 3`.
    :param key: key of the permutations.
    :param num_permutations: number of random permutations.
    :raises ValueError: if samples are too few, not finite or of different shapes.
    """
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
    check_count("num_permutations", num_permutations)
    flat = as_flat_pair(x, y, at_least=3)
    squares = (
        (z - jnp.mean(z, axis=0)) ** 2 * (len(z) / (len(z) - 1)) for z in map(_from_zero, flat)
    )
    return _largest_t(*squares, key, num_permutations, jnp.shape(x)[1:])


@partial(jax.jit, static_argnums=(3, 4))
def _largest_t(x, y, key, num_permutations, event_shape):
    labels = permutations.labels(key, len(x), len(y), num_permutations, x.dtype)
    t = welch_t(_from_zero(jnp.concatenate([x, y])), labels, len(x))
    largest = jnp.max(jnp.abs(t), axis=1)
    p_values = jnp.mean(largest[:, None] >= jnp.abs(t[0]), axis=0, dtype=x.dtype)
    return MomentTest(
        largest[0],
        permutations.p_value(largest),
        t[0].reshape(event_shape),
        p_values.reshape(event_shape),
    )


def welch_t(z: Array, labels: Array, n: int) -> Array:
    """Welch's `t` of each labelling and entry, shape `(num_labellings, d)`."""
    m = len(z) - n
    z = z - jnp.mean(z, axis=0)
    sums, squares = labels @ z, labels @ z**2
    rest, rest_squares = jnp.sum(z, axis=0) - sums, jnp.sum(z**2, axis=0) - squares
    error = jnp.sqrt(
        (squares / n - (sums / n) ** 2) / (n - 1) + (rest_squares / m - (rest / m) ** 2) / (m - 1)
    )
    difference = sums / n - rest / m
    # An entry that is constant does not differ.
    return jnp.where(difference == 0, 0, difference / error)


def _from_zero(z):
    # So that a constant entry is 0, and not a rounding error about its mean.
    return z - z[:1]
