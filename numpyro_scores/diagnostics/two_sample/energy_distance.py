# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The energy distance of two sets of samples, with a permutation test."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics import _kernels
from numpyro_scores.diagnostics._samples import as_flat_pair
from numpyro_scores.diagnostics.two_sample import permutations


class EnergyDistance(NamedTuple):
    """
    What :func:`energy_distance` returns, both of shape `()`.

    - **statistic** - squared energy distance of the empirical measures, in units of `x`; never
      negative, and biased upwards.
    - **p_value** - of the hypothesis that the densities are one; NaN without a key.
    """

    statistic: Array
    p_value: Array


def energy_distance(
    x: Array,
    y: Array,
    *,
    key: Array | None = None,
    num_permutations: int = 500,
    block_size: int = _kernels.BLOCK_SIZE,
) -> EnergyDistance:
    r"""
    :math:`2 E|x - y| - E|x - x'| - E|y - y'|` over the samples (Székely & Rizzo 2013, "Energy
    statistics", equation 6.1), 0 if and only if the densities are one, and the exact p-value of a
    permutation test. It needs no length scale. Memory and time are those of :func:`mmd_test`.

    :param x: independent samples, shape `(n, *event_shape)`, `n >= 2`.
    :param y: independent samples, shape `(m, *event_shape)`, `m >= 2`.
    :param key: key of the permutations; None leaves them out.
    :param num_permutations: number of random permutations.
    :param block_size: rows of the distance matrix in memory at a time.
    :raises ValueError: if samples are too few, not finite or of different shapes.
    """
    if key is not None:
        check_key("energy_distance", key)
    check_count("num_permutations", num_permutations)
    check_count("block_size", block_size)
    x, y = as_flat_pair(x, y)
    z = jnp.concatenate([x, y])
    if key is None:
        labels = (jnp.arange(len(z)) < len(x)).astype(z.dtype)[None]
    else:
        labels = permutations.labels(key, len(x), len(y), num_permutations, z.dtype)
    statistics, rounding = _squared_distances(z, labels, len(x), block_size)
    return EnergyDistance(statistics[0], permutations.p_value(statistics, rounding))


@partial(jax.jit, static_argnums=(2, 3))
def _squared_distances(z, labels, n, block_size):
    def row(point, points):
        return jnp.sqrt(_kernels.squared_distances(point, points))

    within_x, across, within_y = permutations.sums_of_pairs(row, z, labels, block_size)
    m = len(z) - n
    across, within = 2 * across / (n * m), within_x / n**2 + within_y / m**2
    return across - within, permutations.rounding_of_sums(len(z), jnp.max(across + within))
