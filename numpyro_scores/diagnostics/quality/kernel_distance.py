# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The kernel distance of two sets of samples, unbiased, with its standard error."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics._estimates import Estimate
from numpyro_scores.diagnostics._kernels import BLOCK_SIZE, dot
from numpyro_scores.diagnostics.quality.features import Features, pair_of_features


def kernel_distance(
    x: Array,
    y: Array,
    features: Features | None = None,
    *,
    degree: int = 3,
    block_size: int = BLOCK_SIZE,
) -> Estimate:
    r"""
    The unbiased squared maximum mean discrepancy of features with the kernel
    :math:`(a \cdot b / d + 1)^3` (Bińkowski et al. 2018; KID if they are those of an Inception
    network): the mean over pairs of different samples, of all of them and not of subsets, and its
    standard error by leaving out one sample at a time (jackknife). It sees the first three moments.

    :param x: independent samples, shape `(n, *event_shape)`, `n >= 3`.
    :param y: independent samples, shape `(m, *event_shape)`, `m >= 3`.
    :param features: any callable of one point; the points themselves unless given.
    :param degree: of the polynomial.
    :param block_size: rows of the kernel matrix, and points whose features are evaluated, at a
        time.
    :raises ValueError: if samples or features are too few, not finite or of different shapes, or
        `degree` is no positive integer.
    """
    check_count("degree", degree)
    pair = pair_of_features(features, x, y, block_size, at_least=3)
    return _distance(*pair, degree, block_size)


@partial(jax.jit, static_argnums=(2, 3))
def _distance(x, y, degree, block_size):
    n, m, d = len(x), len(y), x.shape[1]

    def kernel(a, b):
        return (dot(a, b) / d + 1) ** degree

    def sums(points, own, other):
        """Of each point, the kernel summed over its own set without itself, and over the other."""

        def row(point):
            self_kernel = (jnp.vdot(point, point) / d + 1) ** degree
            return jnp.sum(kernel(point, own)) - self_kernel, jnp.sum(kernel(point, other))

        return lax.map(row, points, batch_size=block_size)

    (own_x, across_x), (own_y, across_y) = sums(x, x, y), sums(y, y, x)
    total_x, total_y, across = jnp.sum(own_x), jnp.sum(own_y), jnp.sum(across_x)

    def statistic(total_x, total_y, across, n, m):
        return total_x / (n * (n - 1)) + total_y / (m * (m - 1)) - 2 * across / (n * m)

    without_x = statistic(total_x - 2 * own_x, total_y, across - across_x, n - 1, m)
    without_y = statistic(total_x, total_y - 2 * own_y, across - across_y, n, m - 1)
    variance = jnp.var(without_x) * (n - 1) + jnp.var(without_y) * (m - 1)
    return Estimate(statistic(total_x, total_y, across, n, m), jnp.sqrt(variance))
