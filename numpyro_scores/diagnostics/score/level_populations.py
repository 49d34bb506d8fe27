# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Populations of particles that go down the noise levels of an energy, and weigh them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._resampling import log_mean_exp, systematic
from numpyro_scores.densities.noise_path import mean_at_sigma_max
from numpyro_scores.infer.smc.weights import effective_sample_size

# Of the moves: the best in high dimensions (Roberts & Rosenthal 1998), and where their steps begin.
ACCEPT_PROB = 0.574
FIRST_STEP = 0.3


class Particles(NamedTuple):
    """
    - **x** - particles, shape `(n, *event_shape)`.
    - **energy**, **grad** - at the level that they are at.
    - **step** - of a move, over the squared noise level.
    - **log_z** - of that level.
    - **ess** - share of the particles that carried the weight there (Kong, Liu & Wong 1994).
    """

    x: Array
    energy: Array
    grad: Array
    step: Array
    log_z: Array
    ess: Array


def populations(
    denoiser: Any,
    levels: Array,
    keys: Array,
    *,
    event_shape: Any,
    num_particles: int,
    num_moves: int,
) -> tuple[Array, Array, Array, Array]:
    """
    Of each population and level, :math:`\\log Z`, the share of effective particles and the
    acceptance probability; and the particles at the last level.
    """

    def population(key: Array) -> tuple[Array, Array, Array, Array]:
        key_start, key_levels = random.split(key)
        shape = (num_particles, *event_shape)
        start, accepted = _start(denoiser, levels[0], key_start, shape, num_moves)
        step = partial(_next_level, denoiser.energy, num_moves)
        keys = random.split(key_levels, len(levels) - 1)
        end, found = lax.scan(step, start, (levels[:-1], levels[1:], keys))
        first = (start.log_z, start.ess, accepted)
        log_z, ess, accept_prob = (
            jnp.concatenate([one[None], rest]) for one, rest in zip(first, found, strict=True)
        )
        return log_z, ess, accept_prob, end.x

    return jax.vmap(population)(keys)


def _start(denoiser: Any, sigma: Array, key: Array, shape: tuple, num_moves: int) -> Any:
    """Particles at the largest level, from the Gaussian that the energy nearly is there."""
    key_noise, key_probe, key_rest = random.split(key, 3)
    mean = mean_at_sigma_max(denoiser, jnp.zeros(shape[1:]), sigma)
    x = jnp.broadcast_to(mean, shape)
    c = _mean_slope(denoiser.energy, x, sigma, key_probe)
    variance = sigma**2 / (1 - jnp.minimum(c, 0.9))
    noise = random.normal(key_noise, shape)
    x = x + jnp.sqrt(variance) * noise
    energy, grad = _value_and_grad(denoiser.energy, x, sigma)
    log_weights = -energy - _log_normal(noise * jnp.sqrt(variance), variance)
    step = jnp.asarray(FIRST_STEP)
    particles = Particles(x, energy, grad, step, jnp.zeros(()), jnp.ones(()))
    return resampled_and_moved(denoiser.energy, num_moves, particles, log_weights, sigma, key_rest)


def _next_level(
    energy: Any, num_moves: int, particles: Particles, inputs: tuple[Array, Array, Array]
) -> tuple[Particles, tuple[Array, Array, Array]]:
    before, after, key = inputs
    key_noise, key_probe, key_rest = random.split(key, 3)
    t, t_next = before**2, after**2
    c = _mean_slope(energy, particles.x, before, key_probe)
    variance = (1 - t_next / t) * (t_next + (t - t_next) * c)
    noise = jnp.sqrt(variance) * random.normal(key_noise, particles.x.shape)
    x = particles.x - (t - t_next) * particles.grad + noise
    value, grad = _value_and_grad(energy, x, after)
    log_weights = particles.energy - value
    log_weights += _log_normal(particles.x - x, t - t_next) - _log_normal(noise, variance)
    moved = particles._replace(x=x, energy=value, grad=grad)
    particles, accept_prob = resampled_and_moved(
        energy, num_moves, moved, log_weights, after, key_rest
    )
    return particles, (particles.log_z, particles.ess, accept_prob)


def resampled_and_moved(
    energy: Any, num_moves: int, particles: Particles, log_weights: Array, sigma: Array, key: Array
) -> tuple[Particles, Array]:
    n = len(log_weights)
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    key_rows, key_moves = random.split(key)
    rows = systematic(key_rows, log_weights, n, jnp.arange(n))
    log_z = particles.log_z + log_mean_exp(log_weights)
    h = particles.step * sigma**2

    def move(state, key):
        x, value, grad = state
        key_noise, key_accept = random.split(key)
        noise = random.normal(key_noise, x.shape)
        y = x - h * grad + jnp.sqrt(2 * h) * noise
        value_y, grad_y = _value_and_grad(energy, y, sigma)
        back = (x - y + h * grad_y) / jnp.sqrt(2 * h)
        log_ratio = value - value_y + (_sum(noise**2) - _sum(back**2)) / 2
        accept_prob = jnp.where(jnp.isfinite(log_ratio), jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
        accepted = random.uniform(key_accept, (n,)) < accept_prob
        new = (y, value_y, grad_y)
        state = jax.tree.map(lambda a, b: jnp.where(_as(accepted, a), a, b), new, state)
        return state, jnp.mean(accept_prob)

    start = tuple(a[rows] for a in (particles.x, particles.energy, particles.grad))
    (x, value, grad), accept_prob = lax.scan(move, start, random.split(key_moves, num_moves))
    accept_prob = jnp.mean(accept_prob)
    step = particles.step * jnp.exp(accept_prob - ACCEPT_PROB)
    ess = effective_sample_size(log_weights) / n
    return Particles(x, value, grad, step, log_z, ess), accept_prob


def _value_and_grad(energy: Any, x: Array, sigma: Array) -> tuple[Array, Array]:
    return jax.vmap(jax.value_and_grad(energy), (0, None))(x, sigma)


def _mean_slope(energy: Any, x: Array, sigma: Array, key: Array) -> Array:
    r"""The mean of :math:`\tfrac1d \operatorname{tr} \nabla D`, by a probe for each particle."""
    probes = random.rademacher(key, x.shape, x.dtype)
    gradient = jax.vmap(jax.grad(energy), (0, None))
    _, curvature = jax.jvp(lambda x: gradient(x, sigma), (x,), (probes,))
    return jnp.clip(1 - sigma**2 * jnp.mean(probes * curvature), 0.0, 1.0)


def _log_normal(difference: Array, variance: Array) -> Array:
    """Of each row, with this variance in each entry."""
    size = difference[0].size
    return -(_sum(difference**2) / variance + size * jnp.log(2 * jnp.pi * variance)) / 2


def _sum(x: Array) -> Array:
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def _as(flags: Array, like: Array) -> Array:
    return flags.reshape(-1, *[1] * (like.ndim - 1))
