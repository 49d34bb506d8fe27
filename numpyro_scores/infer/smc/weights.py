# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Weights of particles: how unequal they may become, resampling, the variance of an evidence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp

from numpyro_scores._resampling import log_mean_exp, systematic

NUM_BISECTIONS = 60  # halvings: the first power may be as small as 2^-60
NUM_POWER_ITERATIONS = 10
FEWEST_PARTICLES = 10


def effective_sample_size(log_weights: Array) -> Array:
    r""":math:`(\sum w)^2 / \sum w^2` (Kong, Liu & Wong 1994), 0 if all weights are zero."""
    ess = jnp.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights))
    return jnp.where(jnp.isfinite(jnp.max(log_weights)), ess, 0.0)


def next_power(log_likelihood: Array, power: Array, ess: Array | float) -> Array:
    r"""
    The largest :math:`\beta' \le 1` at which the weights :math:`p(y | z)^{\beta' - \beta}` have
    this effective sample size, by bisection (Jasra et al. 2011). The particles are equally weighted
    at :math:`\beta`, so that the conditional effective sample size of Zhou et al. (2016) is the
    same.

    :param log_likelihood: shape `(n,)`, -inf for a particle of weight zero.
    :param power: :math:`\beta`.
    :param ess: the wanted effective sample size.
    """
    # A particle of weight zero stays one at every power, and says nothing about the power.
    wanted = ess * jnp.mean(jnp.isfinite(log_likelihood))

    def enough(increment):
        return effective_sample_size(_tempered(log_likelihood, increment)) >= wanted

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        longer = enough(middle)
        return jnp.where(longer, middle, low), jnp.where(longer, high, middle)

    rest = 1 - power
    # The lower end may be no step at all; the upper one is one, a hair too long.
    _, increment = lax.fori_loop(0, NUM_BISECTIONS, halve, (jnp.zeros_like(rest), rest))
    return jnp.where(enough(rest), jnp.ones_like(power), jnp.minimum(power + increment, 1))


def _tempered(log_likelihood: Array, increment: Array) -> Array:
    # Zero times -inf is NaN.
    alive = jnp.isfinite(log_likelihood)
    return jnp.where(alive, increment * jnp.where(alive, log_likelihood, 0), -jnp.inf)


def incremental_log_weights(log_likelihood: Array, power: Array, new_power: Array) -> Array:
    r""":math:`(\beta' - \beta) \log p(y | z)`, -inf where the likelihood is zero."""
    return _tempered(log_likelihood, new_power - power)


def principal_order(x: Array, log_weights: Array) -> Array:
    """
    The rows of `x`, shape `(m, d)`, in the order of their first principal component: systematic
    resampling then keeps the share of all that it tells apart (Gerber, Chopin & Whiteley 2019).
    """
    w = jax.nn.softmax(log_weights)[:, None]
    x = jnp.where(w > 0, x, 0)
    centred = x - jnp.sum(w * x, axis=0)
    scale = jnp.sqrt(jnp.sum(w * centred**2, axis=0))
    centred = centred / jnp.where(scale > 0, scale, 1)

    def iterate(_, v):
        v = (w * centred).T @ (centred @ v)
        return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)

    start = centred[jnp.argmax(jnp.sum(w * centred**2, axis=1))]
    return jnp.argsort(centred @ lax.fori_loop(0, NUM_POWER_ITERATIONS, iterate, start))


class Selection(NamedTuple):
    """
    - **rows** - the particles that go on, integers of shape `(num,)`.
    - **log_increment** - logarithm of the mean weight.
    - **ess** - effective sample size of the weights.
    - **variance** - what the weights add to the relative variance of the evidence: infinite where
      fewer than ten particles (or half of a few) have all the weight, which tell no error.
    """

    rows: Array
    log_increment: Array
    ess: Array
    variance: Array

    def figures(self) -> dict[str, Array]:
        """What is kept of it in `Rounds`."""
        return {"ess": self.ess, "log_increment": self.log_increment}


def resampled(
    key: Array, x: Array, log_weights: Array, ancestor: Array, num_ancestors: int, num: int
) -> Selection:
    r"""
    Resample `num` of equally weighted particles by new weights.

    The variance is the growth of :math:`\sum_e W_e^2`, where :math:`W_e` is the weight of all
    descendants of draw `e` (Chan & Lai 2013). Growth by resampling is left out, as it is by the
    factors :math:`N / (N - 1)` of Lee & Whiteley (2018, equation 6), who draw independently.

    :param x: particles, shape `(n, d)`.
    :param log_weights: shape `(n,)`.
    :param ancestor: the draw that each descends from, integers of shape `(n,)`.
    """

    def concentration(weights):
        return jnp.sum(jax.ops.segment_sum(weights, ancestor, num_ancestors) ** 2)

    weights = jax.nn.softmax(log_weights)
    ess = effective_sample_size(log_weights)
    growth = concentration(weights) - concentration(jnp.full_like(weights, 1 / len(x)))
    return Selection(
        rows=systematic(key, log_weights, num, principal_order(x, log_weights)),
        log_increment=log_mean_exp(log_weights),
        ess=ess,
        variance=jnp.where(ess < min(FEWEST_PARTICLES, len(x) / 2), jnp.inf, growth),
    )
