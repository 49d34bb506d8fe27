# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Moves of the sites beside diffusion priors, such as a noise scale, at a noise level."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores.infer.adaptation import accept_or_stay
from numpyro_scores.infer.langevin.targets import Point
from numpyro_scores.infer.parts import others_alone
from numpyro_scores.infer.smc.twist import DiffusionTwist


class Twisted(NamedTuple):
    r"""
    - **point** - a particle after the moves. Its energy is minus the log twist, and so the gradient
      in the entries of diffusion priors; that in all others is of :math:`-\log p(\theta) - \log g`.
    - **log_twist** - before the moves.
    - **accept_prob** - mean acceptance probability of the moves.
    - **num_diverging** - number of proposals that were not finite.
    """

    point: Point
    log_twist: Array
    accept_prob: Array
    num_diverging: Array


def twisted(
    key: Array, x: Array, twist: DiffusionTwist, sigma: Array, scale: Array, num_moves: int
) -> Twisted:
    r"""
    A particle :math:`(x_\sigma, \theta)` at a noise level, after Metropolis steps of :math:`\theta`
    by a random walk, which leave :math:`p(\theta)\, g_\sigma(x, \theta)` as it is, and so
    :math:`p_\sigma(x)\, p(\theta)\, g_\sigma(x, \theta)`. The denoiser is evaluated once for all.

    :param x: shape `(d,)`.
    :param scale: standard deviations of the walk, shape `(d,)`.
    """
    others = np.flatnonzero(~twist.is_noisy(x))
    mean, product = jax.linearize(partial(twist.mean, sigma=sigma), x)
    products = twist.products(mean, product)
    spread, varies = twist.spread(mean, products, sigma), twist.varies(x)
    prior = twist.model.potential(others_alone(twist.model.model))

    def log_twist(mean):
        return twist.log_density(mean, twist.spread(mean, products, sigma) if varies else spread)

    def step(current, key):
        key_proposal, key_accept = random.split(key)
        mean, energy = current
        noise = random.normal(key_proposal, others.shape, x.dtype)
        proposal = mean.at[others].add(scale[others] * noise)
        new_energy = prior(proposal) - log_twist(proposal)
        current, *statistics = accept_or_stay(
            random.uniform(key_accept, dtype=x.dtype),
            energy - new_energy,
            (proposal, new_energy),
            current,
        )
        return current, statistics

    before, statistics = None, (jnp.ones(1, x.dtype), jnp.zeros(1, bool))
    if others.size and num_moves:
        before = log_twist(mean)
        start = mean, prior(mean) - before
        (mean, _), statistics = lax.scan(step, start, random.split(key, num_moves))
    after, slope = jax.value_and_grad(log_twist)(mean)
    (grad,) = jax.linear_transpose(product, x)(slope)
    grad = grad.at[others].add(-jax.grad(prior)(mean)[others])
    point = Point(
        x=x.at[others].set(mean[others]),
        energy=-after,
        grad=-grad,
        integral=jnp.zeros_like(after),
    )
    accept_prob, diverging = statistics
    before = after if before is None else before
    return Twisted(point, before, jnp.mean(accept_prob), jnp.sum(diverging))
