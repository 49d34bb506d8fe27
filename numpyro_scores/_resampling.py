# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Weights by their logarithms: rows drawn by them, of particles and of chains; their mean."""

import jax
import jax.numpy as jnp
from jax import Array, random


def systematic(key: Array, log_weights: Array, num: int, order: Array) -> Array:
    r"""
    Systematic resampling (Kitagawa 1996): the rows at the quantiles :math:`(i + u) / n` of the
    weights. Row `i` comes :math:`\lfloor n W_i \rfloor` or :math:`\lceil n W_i \rceil` times, with
    mean :math:`n W_i`; so does any set of rows that lie together in `order`, a mode for example.

    The weights are counted in integers, about :math:`2^{30} / n` for a row of mean weight: sums of
    them have no rounding, so that a row of weight zero is never drawn.

    :param log_weights: shape `(m,)`, need not be normalised.
    :param num: number of rows drawn.
    :param order: a permutation of the rows.
    :return: rows, integers of shape `(num,)`.
    """
    weights = jax.nn.softmax(log_weights[order])
    bits = 30 - (num - 1).bit_length()
    cumulative = jnp.cumsum(jnp.round(num * 2**bits * weights).astype(jnp.int32))
    total = cumulative[-1]
    whole, rest = total // num, total % num
    share = rest.astype(weights.dtype) / num  # what each of the intervals is longer than `whole`
    i = jnp.arange(num, dtype=jnp.int32)
    u = random.uniform(key, dtype=weights.dtype)
    between = jnp.floor(share * i + u * (whole + share)).astype(jnp.int32)
    # Rounding may still carry the last of them to the end.
    quantiles = jnp.minimum(whole * i + between, total - 1)
    return order[jnp.searchsorted(cumulative, quantiles, side="right")]


def log_mean_exp(log_weights: Array, axis: int = 0) -> Array:
    r""":math:`\log \frac1n \sum_i w_i` along an axis, of log weights."""
    return jax.nn.logsumexp(log_weights, axis=axis) - jnp.log(jnp.shape(log_weights)[axis])
