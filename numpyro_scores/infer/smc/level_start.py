# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Where sites beside diffusion priors begin at the largest noise level. There the data say of them,
whatever the noisy point is, nearly what they say with the priors at their mean `m`:
:math:`p(\theta)\, g(m, \theta)`. Draws of :math:`p(\theta)` go there through powers of the twist,
each by weights, resampling and a random walk. It asks no network, and few of the draws would be
left if they were weighed at once: data of 48 numbers know their noise scale well.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores.infer.adaptation import accept_or_stay
from numpyro_scores.infer.parts import others_alone
from numpyro_scores.infer.smc.block_moves import spread_root
from numpyro_scores.infer.smc.gaussian_twist import GaussianTwist
from numpyro_scores.infer.smc.level_moves import LevelTarget
from numpyro_scores.infer.smc.weights import incremental_log_weights, next_power, resampled
from numpyro_scores.infer.trees import map_rows, take

ESS_FRACTION = 0.5
NUM_MOVES = 5  # at each power
SMALLEST_STEP = 1e-3  # of the power, so that there is an end
WALK = 2.4  # optimal in the metric of a Gaussian, over the root of the dimension


class Steered(NamedTuple):
    r"""
    - **x** - particles, shape `(n, dim)`, their diffusion priors at the mean.
    - **log_twist** - :math:`\log g(m, \theta)` of each, shape `(n,)`.
    - **ancestor** - index of the draw that each descends from, shape `(n,)`.
    - **log_evidence** - :math:`\log \int p(\theta)\, g(m, \theta)\, d\theta`.
    - **relative_variance** - of that.
    - **ess** - the smallest effective sample size.
    """

    x: Array
    log_twist: Array
    ancestor: Array
    log_evidence: Array
    relative_variance: Array
    ess: Array


def steered(key: Array, x: Array, twist: GaussianTwist, sigma: Array, batch_size: int) -> Steered:
    """
    Particles whose other sites have gone from their prior to what the data say of them.

    :param x: draws of the model's latent sites, shape `(n, dim)`.
    :param twist: of the noise level `sigma`.
    """
    n, zero = len(x), jnp.zeros((), x.dtype)
    others = np.flatnonzero(~twist.is_noisy(x[0]))
    target = LevelTarget(twist, sigma)

    def log_twist(x):
        value = -target.twist(x).energy
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    if not others.size:
        nothing = jnp.zeros(n, x.dtype)
        return Steered(x, nothing, jnp.arange(n), zero, zero, jnp.asarray(n, x.dtype))
    x = x.at[:, twist.noisy].set(twist.moments.mean)
    prior = twist.model.potential(others_alone(twist.model.model))

    def moves(key, x, value, power):
        root = WALK / np.sqrt(len(others)) * spread_root(x[:, others])

        def step(current, key):
            key_proposal, key_accept = random.split(key)
            x, value = current
            noise = random.normal(key_proposal, others.shape, x.dtype)
            proposal = x.at[others].add(root @ noise)
            new = log_twist(proposal)
            log_ratio = power * (new - value) + prior(x) - prior(proposal)
            uniform = random.uniform(key_accept, dtype=x.dtype)
            return accept_or_stay(uniform, log_ratio, (proposal, new), current)[0], None

        def walk(particle):
            key, x, value = particle
            return lax.scan(step, (x, value), random.split(key, NUM_MOVES))[0]

        return map_rows(walk, (random.split(key, n), x, value), batch_size)

    def stage(carry):
        key, power, at = carry
        key_resample, key_moves, key = random.split(key, 3)
        longest = next_power(at.log_twist, power, ESS_FRACTION * n)
        new_power = jnp.minimum(jnp.maximum(longest, power + SMALLEST_STEP), 1)
        log_weights = incremental_log_weights(at.log_twist, power, new_power)
        selection = resampled(key_resample, at.x, log_weights, at.ancestor, n, n)
        x, value, ancestor = take((at.x, at.log_twist, at.ancestor), selection.rows)
        x, value = moves(key_moves, x, value, new_power)
        at = Steered(
            x=x,
            log_twist=value,
            ancestor=ancestor,
            log_evidence=at.log_evidence + selection.log_increment,
            relative_variance=at.relative_variance + selection.variance,
            ess=jnp.minimum(at.ess, selection.ess),
        )
        return key, new_power, at

    start = Steered(
        x, map_rows(log_twist, x, batch_size), jnp.arange(n), zero, zero, jnp.asarray(n, x.dtype)
    )
    return lax.while_loop(lambda carry: carry[1] < 1, stage, (key, zero, start))[2]
