# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Permutation tests of two samples: what a statistic is when it's by chance who belongs where."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.lax import Precision

HIGHEST = Precision.HIGHEST


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


def p_value(statistics: Array, resolution: Array | float = 0.0) -> Any:
    """
    The share of the statistics that reach the first, which is one of them: exact at any sample
    size (Phipson & Smyth 2010). NaN if it is alone, without a permutation.

    :param statistics: shape `(1 + num_permutations, ...)`, the first as it was measured.
    :param resolution: how far apart two may come out that are equal, by rounding: those are ties,
        as of samples with repeats, and count. Never negative; shape `()` or that of one statistic.
    """
    if len(statistics) == 1:
        # Not an array of JAX, which may be told to refuse a NaN.
        return np.full(statistics.shape[1:], np.nan, statistics.dtype)
    return jnp.mean(reaches(statistics, statistics[:1], resolution), axis=0, dtype=statistics.dtype)


def reaches(statistics: Array, measured: Array, resolution: Array | float) -> Array:
    """Whether a statistic is as large as another one, but for rounding."""
    # An infinite statistic is reached by infinite ones alone.
    slack = jnp.where(jnp.isfinite(measured), resolution, 0)
    return statistics >= jnp.where(jnp.isfinite(measured), measured, jnp.inf) - slack


def rounding_of_sums(num_terms: int, size: Array) -> Array:
    """
    How far apart sums of the same terms in another order may come out.

    :param num_terms: number of terms, added pairwise.
    :param size: sum of their absolute values.
    """
    return 4 * (1 + math.log2(num_terms)) * jnp.finfo(size.dtype).eps * size


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
    z = z - jnp.mean(z, axis=0, keepdims=True)

    def sums(point):
        i, z_i, labels_i = point
        values = jnp.where(jnp.arange(len(z)) == i, 0, row(z_i, z))
        total, in_first = jnp.sum(values), jnp.matmul(labels, values, precision=HIGHEST)
        return labels_i * in_first, labels_i * total, total

    rows = jnp.arange(len(z)), z, labels.T
    within, of_first, total = lax.map(sums, rows, batch_size=block_size)
    within, of_first, total = (sum_pairwise(s) for s in (within, of_first, total))
    across = of_first - within
    return within, across, total - of_first - across


def sum_pairwise(x: Array) -> Array:
    """The sum over the first axis, by halves: its rounding grows with the logarithm alone."""
    while len(x) > 1:
        half = len(x) // 2
        folded = x[:half] + x[half : 2 * half]
        x = jnp.concatenate([folded, x[2 * half :]]) if len(x) % 2 else folded
    return x[0]
