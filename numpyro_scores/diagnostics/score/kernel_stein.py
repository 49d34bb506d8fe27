# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""Kernel Stein discrepancy: whether samples fit a density of which only the score is known."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores._callables import Score, as_pytree, as_score
from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics import _kernels
from numpyro_scores.diagnostics._samples import as_samples, mapped


class KernelSteinDiscrepancy(NamedTuple):
    """
    What :func:`kernel_stein_discrepancy` returns, all of shape `()`.

    - **statistic** - unbiased estimate of the squared discrepancy (U-statistic): around 0, and also
      negative, where the samples fit.
    - **p_value** - of the wild bootstrap; NaN without a key.
    - **v_statistic** - squared discrepancy of the empirical measure itself: never negative, biased
      upwards.
    - **lengthscale** - of the kernel.
    """

    statistic: Array
    p_value: Array
    v_statistic: Array
    lengthscale: Array


def kernel_stein_discrepancy(
    x: Array,
    score: Score,
    *,
    key: Array | None = None,
    lengthscale: float | None = None,
    num_bootstrap: int = 1_000,
    flip_probability: float = 0.5,
    block_size: int = _kernels.BLOCK_SIZE,
) -> KernelSteinDiscrepancy:
    r"""
    The kernel Stein discrepancy of samples from a density known up to its normaliser,

    .. math:: \frac{1}{n (n - 1)} \sum_{i \ne j} k_p(x_i, x_j), \qquad
        k_p(x, y) = \nabla_x \cdot \nabla_y k + s(x) \cdot \nabla_y k + s(y) \cdot \nabla_x k
        + k\, s(x) \cdot s(y),

    with the inverse multiquadric kernel :math:`k(x, y) = (1 + |x - y|^2 / \ell^2)^{-1/2}`, with
    which it tells whether a sequence of samples converges (Gorham & Mackey 2017, "Measuring sample
    quality with kernels"). It is blind to the weights of modes that are far apart, as every
    diagnostic from the score is.

    The p-value is that of the wild bootstrap (Chwialkowski, Strathmann & Gretton 2016, section 4):
    the share of :math:`\sum_{i \ne j} w_i w_j k_p(x_i, x_j)` that reach the sum without signs,
    where :math:`w_i = \pm 1` flips from one sample to the next with `flip_probability`. With 1/2
    the signs are independent, as independent samples want. The draws of a chain, in their order,
    want signs that keep longer than they do: at most a sixth of the inverse of the integrated
    autocorrelation time, of at least 100 such times. Or thin the chain.

    Memory is that of `block_size` rows of the kernel matrix, time grows as `n * n * (d +
    num_bootstrap)`.

    :param x: samples, shape `(n, *event_shape)`, `n >= 2`.
    :param score: the score of one point, `x -> x.shape`, an energy, `x -> ()`, or a
        distribution.
    :param key: key of the bootstrap; None leaves it out.
    :param lengthscale: :math:`\ell`, in units of `x`; the median distance of the samples unless
        given.
    :param num_bootstrap: number of draws of signs.
    :param flip_probability: of a sign to the next.
    :param block_size: rows of the kernel matrix in memory at a time.
    :raises ValueError: if samples are too few or not finite, or an argument is out of its range.
    """
    if key is not None:
        check_key("kernel_stein_discrepancy", key)
    check_count("num_bootstrap", num_bootstrap)
    check_count("block_size", block_size)
    if not 0 < flip_probability <= 0.5:
        raise ValueError(
            f"flip_probability must be in (0, 1/2], got {flip_probability!r}: 1/2 for independent "
            "samples, less for the draws of a chain."
        )
    x = as_samples("x", x)
    flat, scores = scores_at(score, x, block_size)
    scale = _kernels.lengthscale_or_median(lengthscale, flat)
    signs = None
    if key is not None:
        signs = wild_signs(key, len(x), num_bootstrap, flip_probability).astype(flat.dtype)
    statistic, p_value, v_statistic = _statistics(flat, scores, scale, signs, block_size)
    if p_value is None:
        # Not by JAX, for which a NaN may be an error (`jax_debug_nans`).
        p_value: Any = np.full((), np.nan, statistic.dtype)
    return KernelSteinDiscrepancy(statistic, p_value, v_statistic, scale)


def scores_at(score: Any, x: Array, block_size: int) -> tuple[Array, Array]:
    """
    The centred points and their scores, both flat, shape `(n, d)`.

    :param score: a score, an energy or a distribution.
    """
    return compiled(_scores_at, as_pytree("score", score), x, block_size=block_size)


def _scores_at(score, x, block_size):
    scores = mapped(as_score(score, x[0]), x, block_size).reshape(len(x), -1)
    flat = x.reshape(len(x), -1)
    # Differences of squares lose digits far from the origin.
    return flat - jnp.mean(flat, axis=0, keepdims=True), scores


def stein_kernel(x: Array, score: Array, y: Array, scores: Array, lengthscale: Array) -> Array:
    r"""
    The Langevin Stein kernel :math:`k_p(x, y_j)` of the inverse multiquadric
    :math:`k = \varphi(u) = (1 + u)^{-1/2}`, :math:`u = |x - y|^2 / \ell^2`:

    .. math:: k_p = -\frac{2 d \varphi' + 4 u \varphi''}{\ell^2}
        + \frac{2 \varphi'}{\ell^2} (s(y) - s(x)) \cdot (x - y) + \varphi\, s(x) \cdot s(y).

    :param x: a point, shape `(d,)`, and its `score`.
    :param y: points, shape `(n, d)`, and their `scores`.
    :return: shape `(n,)`.
    """
    square = lengthscale**2
    u = _kernels.squared_distances(x, y) / square
    phi = _kernels.imq_kernel(u)
    first, second = -(phi**3) / 2, 3 * phi**5 / 4
    # Two products of width 2 d, in place of an array of differences of shape (n, n, d).
    crossed = _kernels.dot(jnp.append(x, score), jnp.append(scores, y, axis=1))
    work = crossed - jnp.sum(scores * y, axis=1) - jnp.vdot(score, x)
    trace = -2 * x.size * first - 4 * u * second
    return (trace + 2 * first * work) / square + phi * _kernels.dot(score, scores)


def stein_diagonal(scores: Array, lengthscale: Array) -> Array:
    r""":math:`k_p(x, x) = d / \ell^2 + |s(x)|^2`, shape `(n,)`."""
    return scores.shape[1] / lengthscale**2 + jnp.sum(scores**2, axis=1)


@partial(jax.jit, static_argnums=(1, 2))
def wild_signs(key: Array, n: int, num_bootstrap: int, flip_probability: float) -> Array:
    """Signs that flip from sample to sample with a probability, shape `(n, num_bootstrap)`."""
    flips = random.bernoulli(key, jnp.float32(flip_probability), (n, num_bootstrap))
    return 1 - 2 * (jnp.cumsum(flips, axis=0) % 2)


def bootstrap_p_value(statistic: Array, bootstrap: Array) -> Array:
    """The share of the bootstrap, the statistic itself among it, that reaches it."""
    return (1 + jnp.sum(bootstrap >= statistic)) / (1 + len(bootstrap))


@partial(jax.jit, static_argnums=4)
def _statistics(x, scores, lengthscale, signs, block_size):
    diagonal = stein_diagonal(scores, lengthscale)
    n = len(x)

    def row(point):
        i, x_i, score_i, signs_i = point
        values = stein_kernel(x_i, score_i, x, scores, lengthscale)
        values = jnp.where(jnp.arange(n) == i, 0, values)
        return jnp.sum(values), None if signs is None else signs_i * (values @ signs)

    sums, signed_sums = lax.map(row, (jnp.arange(n), x, scores, signs), batch_size=block_size)
    total = jnp.sum(sums)
    p_value = None
    if signs is not None:
        p_value = bootstrap_p_value(total, jnp.sum(signed_sums, axis=0))
    v_statistic = (total + jnp.sum(diagonal)) / n**2
    return total / (n * (n - 1)), p_value, v_statistic
