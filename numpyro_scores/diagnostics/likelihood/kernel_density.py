# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The likelihood of a model that can only be sampled, by a kernel density estimate."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics._estimates import mean_and_error
from numpyro_scores.diagnostics._kernels import BLOCK_SIZE, median_distance, squared_distances
from numpyro_scores.diagnostics._samples import as_flat_pair

# Bandwidths that are tried, over the median distance of the samples.
RELATIVE_BANDWIDTHS = np.geomspace(0.01, 1.0, 40)


class KernelDensity(NamedTuple):
    """
    What :func:`kernel_density_log_likelihood` returns.

    - **value** - mean log density of the points, in nats, shape `()`.
    - **standard_error** - of the mean, from the choice of the points alone: that of the samples,
      and the bias of the estimate, which grows with the dimension, come on top.
    - **bandwidth** - standard deviation of the kernel, in units of the samples.
    - **log_prob** - log density of each point, shape `(m,)`.
    """

    value: Array
    standard_error: Array
    bandwidth: Array
    log_prob: Array


def kernel_density_log_likelihood(
    samples: Array,
    points: Array,
    *,
    bandwidths: Any = None,
    block_size: int = BLOCK_SIZE,
) -> KernelDensity:
    r"""
    The mean over points :math:`y` of :math:`\log \frac1n \sum_i N(y; x_i, h^2 I)` with samples
    :math:`x_i` of the model (Parzen 1962), where the bandwidth `h` is the one of most likelihood of
    each sample held out from the others. The points have no part in that choice.

    In many dimensions it is far too low, and says little of the order of models (Theis, van den
    Oord & Bethge 2016).

    :param samples: draws of the model, shape `(n, *event_shape)`, `n >= 2`.
    :param points: shape `(m, *event_shape)`, `m >= 2`.
    :param bandwidths: those to choose from; 40 from 0.01 to 1 times the samples' median distance
        unless given.
    :param block_size: rows of the distance matrix in memory at a time.
    :raises ValueError: if samples or points are too few, not finite or of different shapes, or if a
        bandwidth is not positive.
    """
    check_count("block_size", block_size)
    x, y = as_flat_pair(samples, points)
    centre = jnp.mean(x, axis=0, keepdims=True)
    x, y = x - centre, y - centre
    if bandwidths is None:
        bandwidths = median_distance(x) * RELATIVE_BANDWIDTHS
    bandwidths = jnp.asarray(bandwidths, x.dtype)
    if bandwidths.ndim != 1 or not np.all(np.asarray(bandwidths) > 0):
        raise ValueError(f"bandwidths must be a sequence of positive numbers, got {bandwidths}.")
    bandwidth, log_prob = _chosen(x, y, bandwidths, block_size)
    return KernelDensity(*mean_and_error(log_prob), bandwidth, log_prob)


@partial(jax.jit, static_argnums=3)
def _chosen(x, y, bandwidths, block_size):
    n, d = x.shape

    def log_density(squares, bandwidth, count):
        constant = d * jnp.log(bandwidth) + d / 2 * jnp.log(2 * jnp.pi) + jnp.log(count)
        return jax.nn.logsumexp(-squares / (2 * bandwidth**2)) - constant

    def held_out(i_and_point):
        i, point = i_and_point
        squares = jnp.where(jnp.arange(n) == i, jnp.inf, squared_distances(point, x))
        return lax.map(lambda h: log_density(squares, h, n - 1), bandwidths)

    likelihoods = lax.map(held_out, (jnp.arange(n), x), batch_size=block_size)
    bandwidth = bandwidths[jnp.argmax(jnp.mean(likelihoods, axis=0))]

    def of_point(point):
        return log_density(squared_distances(point, x), bandwidth, n)

    return bandwidth, lax.map(of_point, y, batch_size=block_size)
