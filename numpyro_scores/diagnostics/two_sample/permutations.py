# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Permutation tests of two samples: what a statistic is when it's by chance who belongs where."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax, random


def labels(key: Array, n: int, m: int, num_permutations: int, dtype) -> Array:
    """
    Which of the `n + m` samples are in the first set: 1 or 0, first as it is, then by chance;
    shape `(1 + num_permutations, n + m)`.
    """
    truth = (jnp.arange(n + m) < n).astype(dtype)[None]
    return jnp.append(truth, shuffled_rows(key, truth[0], num_permutations), axis=0)


def shuffled_rows(key: Array, row: Array, num_rows: int) -> Array:
    """As many independent permutations of one row."""
    return random.permutation(key, jnp.tile(row, (num_rows, 1)), axis=1, independent=True)


def p_value(statistics: Array) -> Array:
    """
    The share of the statistics that reach the first, which is one of them: exact at any sample
    size (Phipson & Smyth 2010). NaN if it is alone, without a permutation.
    """
    if len(statistics) == 1:
        return jnp.full_like(statistics[0], jnp.nan)
    return jnp.mean(statistics >= statistics[0], dtype=statistics.dtype)


def sums_of_pairs(
    row: Callable[[Array, Array], Array], z: Array, labels: Array, block_size: int
) -> tuple[Array, Array, Array]:
    """
    Sums of a symmetric kernel over the pairs of different samples: both of the first set, one of
    each, both of the second, for each labelling. Memory is that of `block_size` rows of the kernel.

    :param row: the kernel of one point, `(d,)`, and many, `(n, d)`: shape `(n,)`.
    :param z: both sets, shape `(n, d)`.
    :param labels: 1 in the first set, 0 in the second, shape `(num_labellings, n)`.
    :return: three arrays of shape `(num_labellings,)`; pairs of one set count twice.
    """
    # Differences of squares lose digits far from the origin.
    z = z - jnp.mean(z, axis=0)

    def sums(point):
        i, z_i, labels_i = point
        values = jnp.where(jnp.arange(len(z)) == i, 0, row(z_i, z))
        total, in_first = jnp.sum(values), labels @ values
        return labels_i * in_first, labels_i * total, total

    rows = jnp.arange(len(z)), z, labels.T
    within, of_first, total = lax.map(sums, rows, batch_size=block_size)
    within, of_first, total = (jnp.sum(s, axis=0) for s in (within, of_first, total))
    across = of_first - within
    return within, across, total - of_first - across
