# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The likelihood of a latent-variable model, by annealing from an approximate posterior."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._callables import as_pytree
from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_count, check_key, check_positive
from numpyro_scores.diagnostics._samples import as_samples, check_at_least_two, mapped
from numpyro_scores.diagnostics.likelihood.importance import (
    ImportanceEstimate,
    joint,
    log_mean_weight,
)
from numpyro_scores.distributions._coordinates import coordinates_of_support


def annealed_log_likelihood(
    log_joint: Callable[[Array, Array], Array],
    proposal: Callable[[Array], Any],
    points: Array,
    *,
    key: Array,
    step_size: float,
    num_draws: int = 32,
    num_levels: int = 100,
    num_steps: int = 5,
    block_size: int = 16,
) -> ImportanceEstimate:
    r"""
    :math:`\log p(y)` of each point by annealed importance sampling (Neal 2001; Wu et al. 2017, "On
    the quantitative analysis of decoder-based generative models"): draws of a proposal go along
    :math:`q(z | y)^{1 - \beta} p(y, z)^\beta` from 0 to 1, with one trajectory of Hamiltonian Monte
    Carlo at each level, and weights

    .. math:: \log w = \frac1L \sum_{l=1}^L \bigl(\log p(y, z_l) - \log q(z_l | y)\bigr),
        \qquad E\, w = p(y).

    The estimate is too low on average, as of :func:`importance_log_likelihood`; but the proposal
    may be far from the posterior, such as the prior.

    :param log_joint: :math:`\log p(y, z)`, `(z, y) -> ()`.
    :param proposal: `q`, a NumPyro distribution on all real numbers, of `z` for one point `y`.
    :param points: shape `(n, *event_shape)`.
    :param key: a random key.
    :param step_size: of the leapfrog, in the units of `z`: about half of the narrowest direction of
        the posterior.
    :param num_draws: chains for each point, at least 2.
    :param num_levels: `L`.
    :param num_steps: leapfrog steps at each level.
    :param block_size: points evaluated at a time.
    :raises ValueError: if points are not finite, a number is not positive, there is no key, or the
        proposal has bounds.
    :raises TypeError: if it returns no distribution.
    """
    check_key("annealed_log_likelihood", key)
    check_positive("step_size", step_size)
    check_at_least_two("num_draws", num_draws)
    for name, value in (
        ("num_levels", num_levels),
        ("num_steps", num_steps),
        ("block_size", block_size),
    ):
        check_count(name, value)
    points = as_samples("points", points, at_least=1)
    pair = as_pytree("log_joint", log_joint), as_pytree("proposal", proposal)
    sizes = {"num_draws": num_draws, "num_levels": num_levels, "num_steps": num_steps}
    step = jnp.asarray(step_size, points.dtype)
    return log_mean_weight(
        compiled(_annealed, pair, points, key, step, block_size=block_size, **sizes)
    )


def _annealed(pair, points, key, step_size, *, num_draws, num_levels, num_steps, block_size):
    log_joint, proposal = pair
    betas = jnp.arange(1, num_levels + 1) / num_levels

    def of_point(point_and_key):
        y, key = point_and_key
        q = joint(proposal(y))
        if coordinates_of_support(q.support) is not None:
            raise ValueError(
                "annealed_log_likelihood moves z over all real numbers, but proposal has the "
                f"support {q.support}: write both densities in coordinates without bounds, the "
                "log of a positive z with its Jacobian, say."
            )

        def rise(z):
            return log_joint(z, y) - q.log_prob(z)

        def of_chain(key):
            key_start, key_levels = random.split(key)

            def level(carry, beta_and_key):
                z, log_weight = carry
                beta, key = beta_and_key
                log_weight += rise(z) / num_levels

                def potential(z):
                    return -q.log_prob(z) - beta * rise(z)

                return (trajectory(potential, key, z, step_size, num_steps), log_weight), None

            z = q.sample(key_start)
            start = z, jnp.zeros((), jax.eval_shape(rise, z).dtype)
            return lax.scan(level, start, (betas, random.split(key_levels, num_levels)))[0][1]

        return jax.vmap(of_chain)(random.split(key, num_draws))

    return mapped(of_point, (points, random.split(key, len(points))), block_size)


def trajectory(
    potential: Callable[[Array], Array], key: Array, z: Array, step_size: Array, num_steps: int
) -> Array:
    """Where one trajectory of Hamiltonian Monte Carlo ends, accepted or not."""
    key_momentum, key_accept = random.split(key)
    gradient = jax.grad(potential)
    momentum = random.normal(key_momentum, z.shape, z.dtype)

    def step(state, _):
        x, p, grad = state
        p = p - step_size / 2 * grad
        x = x + step_size * p
        grad = gradient(x)
        return (x, p - step_size / 2 * grad, grad), None

    start = z, momentum, gradient(z)
    (x, p, _), _ = lax.scan(step, start, None, length=num_steps)
    before = potential(z) + jnp.sum(momentum**2) / 2
    after = potential(x) + jnp.sum(p**2) / 2
    # A comparison with NaN, where the steps left the finite numbers, rejects.
    return jnp.where(jnp.log(random.uniform(key_accept)) < before - after, x, z)
