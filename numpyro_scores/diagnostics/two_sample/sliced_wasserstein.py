# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The sliced Wasserstein distance of two sets of samples, with a permutation test."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics._samples import as_flat_pair, check_at_least_two
from numpyro_scores.diagnostics.two_sample import permutations


class SlicedWasserstein(NamedTuple):
    """
    What :func:`sliced_wasserstein` returns, all of shape `()`.

    - **statistic** - the distance, in units of `x`.
    - **p_value** - of the hypothesis that the densities are one; NaN without permutations.
    - **standard_error** - of the distance, from the choice of the directions alone.
    """

    statistic: Array
    p_value: Array
    standard_error: Array


def sliced_wasserstein(
    x: Array,
    y: Array,
    *,
    key: Array,
    num_projections: int = 100,
    order: int = 2,
    num_permutations: int = 0,
) -> SlicedWasserstein:
    r"""
    The mean over random directions :math:`\theta` of the Wasserstein distance on a line,

    .. math:: \Bigl( E_\theta \int_0^1 |F^{-1}_{\theta \cdot x}(u) - F^{-1}_{\theta \cdot y}(u)|^p
        \,du \Bigr)^{1/p},

    exact for the empirical measures along each direction (Bonneel et al. 2015, "Sliced and Radon
    Wasserstein barycenters of measures"). Samples of one density are not at distance 0: compare
    with the distance of two sets that are, or ask for a p-value.

    :param x: samples, shape `(n, *event_shape)`, `n >= 2`.
    :param y: samples, shape `(m, *event_shape)`, `m >= 2`.
    :param key: key of the directions and the permutations.
    :param num_projections: number of directions, 2 at least.
    :param order: :math:`p`, a positive integer.
    :param num_permutations: number of random permutations of the test, each of which costs as much
        as the distance itself; 0 leaves them out.
    :raises ValueError: if samples are too few, not finite or of different shapes.
    """
    check_key("sliced_wasserstein", key)
    check_count("order", order)
    check_at_least_two("num_projections", num_projections)
    if num_permutations:
        check_count("num_permutations", num_permutations)
    x, y = as_flat_pair(x, y)
    found = _distance(x, y, key, num_projections, order, num_permutations)
    distance, error, statistics, rounding = found
    return SlicedWasserstein(distance, permutations.p_value(statistics, rounding), error)


def powers_on_a_line(x: Array, y: Array, order: int) -> Array:
    r"""
    :math:`\int |F_x^{-1} - F_y^{-1}|^p du` along the last axis, shapes `(..., n)` and `(..., m)`.
    """
    n, m = x.shape[-1], y.shape[-1]
    # The quantile functions jump at i / n and at j / m: between two jumps both are constant.
    jumps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    of_x, of_y = jumps[:-1] // m, jumps[:-1] // n
    gaps = jnp.sort(x)[..., of_x] - jnp.sort(y)[..., of_y]
    return jnp.abs(gaps) ** order @ jnp.asarray(np.diff(jumps) / (n * m), x.dtype)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _distance(x, y, key, num_projections, order, num_permutations):
    key_directions, key_permutations = random.split(key)
    directions = random.normal(key_directions, (x.shape[1], num_projections), x.dtype)
    directions = directions / jnp.linalg.norm(directions, axis=0, keepdims=True)
    n = len(x)
    z = jnp.concatenate([x, y])
    # From one of the samples: the differences of samples on a grid keep all of their digits.
    projected = (z - z[:1]) @ directions
    projected = projected.T

    def powers(rows):
        return powers_on_a_line(projected[:, rows[:n]], projected[:, rows[n:]], order)

    rows = jnp.arange(n + len(y))
    observed = powers(rows)
    mean = jnp.mean(observed)
    statistics = mean[None]
    if num_permutations:
        permuted = permutations.shuffled_rows(key_permutations, rows, num_permutations)
        by_chance = lax.map(lambda rows: jnp.mean(powers(rows)), permuted)
        statistics = jnp.append(statistics, by_chance)
    # A gap g is off by the rounding r of what is projected, its power by some p g^(p-1) r.
    largest = jnp.max(jnp.abs(projected))
    slope = order * mean ** ((order - 1) / order) if order > 1 else 1
    rounding = permutations.rounding_of_sums(len(z), mean + slope * largest)
    distance = mean ** (1 / order)
    error = jnp.std(observed, ddof=1) / jnp.sqrt(num_projections)
    # The derivative of the root; where all directions agree that the distance is 0, it is.
    error = jnp.where(mean > 0, error * distance / (order * jnp.where(mean > 0, mean, 1)), 0)
    return distance, error, statistics, rounding
