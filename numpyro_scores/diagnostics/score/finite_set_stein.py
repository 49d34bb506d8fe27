# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Stein discrepancy at a few places: a test of fit in linear time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._callables import Score
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics import _kernels
from numpyro_scores.diagnostics._samples import as_samples
from numpyro_scores.diagnostics.score.kernel_stein import bootstrap_p_value, scores_at, wild_signs


class FiniteSetSteinDiscrepancy(NamedTuple):
    """
    What :func:`finite_set_stein_discrepancy` returns.

    - **statistic** - unbiased estimate of the squared discrepancy, shape `()`.
    - **p_value** - of the wild bootstrap, shape `()`.
    - **witness** - how much each place has of it, shape `(num_locations,)`: where samples and
      density differ.
    - **locations** - the places, shape `(num_locations, *event_shape)`.
    """

    statistic: Array
    p_value: Array
    witness: Array
    locations: Array


def finite_set_stein_discrepancy(
    x: Array,
    score: Score,
    *,
    key: Array,
    num_locations: int = 10,
    lengthscale: float | None = None,
    num_bootstrap: int = 1_000,
    block_size: int = _kernels.BLOCK_SIZE,
) -> FiniteSetSteinDiscrepancy:
    r"""
    The finite set Stein discrepancy (Jitkrittum et al. 2017, "A linear-time kernel goodness-of-fit
    test", equation 2) at `J` places, with a Gaussian kernel :math:`e^{-|x - v|^2 / 2 \ell^2}`,

    .. math:: \frac{1}{d J} \sum_{j=1}^J |E\, \xi(x, v_j)|^2, \qquad
        \xi(x, v) = s(x) k(x, v) + \nabla_x k(x, v),

    where :math:`E\, \xi = 0` under the density. Time and memory grow as `n * d * num_locations`,
    and as `n * num_bootstrap`. The places are drawn from the normal distribution with the mean and
    the variances of the samples; the p-value is that of independent signs
    (:func:`kernel_stein_discrepancy`), so that the samples must be independent.

    :param x: samples, shape `(n, *event_shape)`, `n >= 2`.
    :param score: the score of one point, an energy, or a distribution.
    :param key: key of the places and of the bootstrap.
    :param num_locations: `J`.
    :param lengthscale: :math:`\ell`, in units of `x`; the median distance of the samples unless
        given.
    :param num_bootstrap: number of draws of signs.
    :param block_size: scores evaluated at a time.
    :raises ValueError: if samples are too few or not finite, or an argument is out of its range.
    """
    check_key("finite_set_stein_discrepancy", key)
    check_count("num_locations", num_locations)
    check_count("num_bootstrap", num_bootstrap)
    check_count("block_size", block_size)
    x = as_samples("x", x)
    flat, scores = scores_at(score, x, block_size)
    scale = _kernels.lengthscale_or_median(lengthscale, flat)
    key_locations, key_signs = random.split(key)
    noise = random.normal(key_locations, (num_locations, flat.shape[1]), flat.dtype)
    locations = jnp.std(flat, axis=0, keepdims=True) * noise
    signs = wild_signs(key_signs, len(x), num_bootstrap, 0.5).astype(flat.dtype)
    statistic, p_value, witness = _statistics(flat, scores, locations, scale, signs)
    mean = jnp.mean(x, axis=0, keepdims=True)
    locations = mean + locations.reshape(num_locations, *x.shape[1:])
    return FiniteSetSteinDiscrepancy(statistic, p_value, witness, locations)


def stein_features(x: Array, score: Array, locations: Array, lengthscale: Array) -> Array:
    r""":math:`\xi(x, v_j) / \sqrt{d J}` of one point, shape `(num_locations, d)`."""
    difference = (x[None] - locations) / lengthscale
    kernel = _kernels.gaussian_kernel(jnp.sum(difference**2, axis=1))[:, None]
    return kernel * (score[None] - difference / lengthscale) / jnp.sqrt(locations.size)


@jax.jit
def _statistics(x, scores, locations, lengthscale, signs):
    n = len(x)
    features = jax.vmap(stein_features, (0, 0, None, None))(x, scores, locations, lengthscale)
    # Over pairs i != j, as an unbiased estimate: the square of the sum without the squares.
    own = jnp.sum(features**2, axis=(0, 2))
    witness = (jnp.sum(jnp.sum(features, axis=0) ** 2, axis=1) - own) / (n * (n - 1))
    signed = jnp.tensordot(signs, features, (0, 0))
    bootstrap = (jnp.sum(signed**2, axis=(1, 2)) - jnp.sum(own)) / (n * (n - 1))
    statistic = jnp.sum(witness)
    return statistic, bootstrap_p_value(statistic, bootstrap), witness
