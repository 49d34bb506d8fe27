# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What random weights say of their mean."""

import math

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp

from numpyro_scores._resampling import log_mean_exp

NUM_FRACTIONS = 8
NUM_HALVINGS = 40


def log_mean(log_weights: Array) -> tuple[Array, Array]:
    r"""
    :math:`\log \bar w` and its standard error by the delta method, :math:`s_w / (\bar w \sqrt n)`.

    :param log_weights: :math:`\log w_i`, shape `(n,)`.
    """
    n = len(log_weights)
    estimate = log_mean_exp(log_weights)
    relative = jnp.exp(log_weights - estimate)
    return estimate, jnp.std(relative, ddof=1) / math.sqrt(n)


def log_mean_bound(log_weights: Array, failure: float) -> Array:
    r"""
    A lower bound of :math:`\log m` from independent weights :math:`w_i \ge 0` of mean :math:`m`,
    whatever else their distribution is and however few they are: it fails with a probability of at
    most `failure`.

    It bets against a mean: who stakes a fraction :math:`\lambda` at each weight owns
    :math:`\prod_i (1 - \lambda + \lambda w_i / m)`, of mean 1 if :math:`m` is right, and so has
    more than `1 / failure` with a probability of at most `failure` (Markov). The bound is the
    smallest mean that is not refuted by the average over :math:`\lambda = 1, 1/2, 1/4, \dots`
    (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting").

    At a failure of 2.5% it lies about 3.4 standard errors below :math:`\log \bar w`, but at least
    :math:`5.8 / n`. (Markov's inequality for :math:`\bar w` itself would give 3.7.)

    :param log_weights: :math:`\log w_i`, shape `(n,)`.
    :return: shape `()`.
    """
    n = len(log_weights)
    estimate, _ = log_mean(log_weights)
    relative = log_weights - estimate
    fractions = 2.0 ** -jnp.arange(NUM_FRACTIONS)[:, None]
    enough = math.log(NUM_FRACTIONS / failure)

    def halve(_, bracket):
        refuted, accepted = bracket
        middle = (refuted + accepted) / 2
        growth = jnp.logaddexp(
            jnp.log1p(-fractions), jnp.log(fractions) + (relative - middle)[None]
        )
        is_refuted = logsumexp(jnp.sum(growth, 1)) > enough
        return jnp.where(is_refuted, middle, refuted), jnp.where(is_refuted, accepted, middle)

    # The largest fraction alone refutes the one end; the mean weight cannot be refuted (Jensen).
    ends = jnp.mean(relative) - enough / n, jnp.zeros_like(estimate)
    return estimate + lax.fori_loop(0, NUM_HALVINGS, halve, ends)[0]
