# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Kernels of the squared distance, and distances without an array of shape `(n, m, d)`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from numpyro_scores._validation import check_positive

# The median over more points differs by less than its own error.
NUM_MEDIAN_POINTS = 1_000
# Rows of a kernel matrix that are in memory at a time.
BLOCK_SIZE = 256
# Up to so many dimensions the differences themselves are squared: a matrix product saves nothing.
MAX_DIRECT = 4
# Roundings of the sum of squares, in units of the last place.
NUM_ROUNDINGS = 8


def dot(x: Array, y: Array) -> Array:
    """Inner products over the last axis, shapes `(d,)` and `(n, d)`, in full precision on GPUs."""
    return jnp.matmul(y, x, precision=lax.Precision.HIGHEST)


def squared_distances(x: Array, y: Array) -> Array:
    r"""
    :math:`|x - y_j|^2`; of more than 4 dimensions by :math:`|x|^2 - 2 x \cdot y_j + |y_j|^2`, a
    matrix product under `vmap`. The points should be centred then, or the difference loses digits;
    what may be rounding alone is 0, so that equal points are at distance 0.

    :param x: a point, shape `(d,)`.
    :param y: points, shape `(n, d)`.
    :return: shape `(n,)`, never negative.
    """
    if x.size <= MAX_DIRECT:
        # Term by term: XLA fuses them, and not a sum over a short axis.
        return functools.reduce(jnp.add, ((x[k] - y[:, k]) ** 2 for k in range(x.size)))
    size = jnp.sum(x**2) + jnp.sum(y**2, axis=1)
    squares = size - 2 * dot(x, y)
    return jnp.where(squares > rounding_of(x) * size, squares, 0)


def rounding_of(x: Array) -> float:
    """The relative error that is allowed for a sum of squares."""
    return NUM_ROUNDINGS * float(jnp.finfo(x.dtype).eps)


@jax.jit
def median_distance(x: Array) -> Array:
    """
    The median distance between two of the points, the usual scale of a kernel; over at most 1,000
    of them, evenly spaced in their order. 1 if more than half of the distances are 0.

    :param x: points, shape `(n, d)`.
    """
    x = x[:: math.ceil(len(x) / NUM_MEDIAN_POINTS)]
    rows, columns = np.triu_indices(len(x), 1)
    distances = lax.map(lambda point: squared_distances(point, x), x, batch_size=BLOCK_SIZE)
    median = jnp.sqrt(jnp.median(distances[rows, columns]))
    return jnp.where(median > 0, median, 1)


def lengthscale_or_median(lengthscale: float | Array | None, x: Array) -> Array:
    """The length scale that was given, or the median distance of the points."""
    if lengthscale is None:
        return median_distance(x)
    check_positive("lengthscale", lengthscale)
    return jnp.asarray(lengthscale, x.dtype)


def gaussian_kernel(squares: Array) -> Array:
    r""":math:`e^{-u/2}` of the squared distance `u` in units of the length scale."""
    return jnp.exp(-squares / 2)


def imq_kernel(squares: Array) -> Array:
    r""":math:`(1 + u)^{-1/2}`, the inverse multiquadric: heavier tails than a Gaussian."""
    return lax.rsqrt(1 + squares)
