# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether an energy of every noise level is normalised, at each."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores._compile import compiled
from numpyro_scores._resampling import log_mean_exp, systematic
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.densities.noise_path import mean_at_sigma_max

# Of the moves: the best in high dimensions (Roberts & Rosenthal 1998), and where their steps begin.
ACCEPT_PROB = 0.574
FIRST_STEP = 0.3
# The second run makes so many times the moves of the first.
MORE_MOVES = 4
# Populations whose spread is the error.
NUM_RUNS = 4


class LevelNormalizers(NamedTuple):
    r"""
    What :func:`level_normalizers` returns; a row of each array is a noise level. As a function of
    the noise level it is :math:`\log Z` between the rows, for `log_normalizer` of a
    :class:`~numpyro_scores.DiffusionPrior`.

    - **sigma** - the noise levels, from large to small.
    - **log_normalizer** - :math:`\log Z`, by the run with more moves.
    - **standard_error** - of that, from the spread of four populations: itself known to a factor
      of two.
    - **fewer_moves** - :math:`\log Z` by the run with a quarter of the moves.
    - **fewer_moves_error** - of that.
    - **accept_prob** - mean acceptance probability of the moves.
    """

    sigma: Array
    log_normalizer: Array
    standard_error: Array
    fewer_moves: Array
    fewer_moves_error: Array
    accept_prob: Array

    def __call__(self, sigma: Any) -> Array:
        r""":math:`\log Z` at a noise level, linear in :math:`\log \sigma` between those known."""
        log_sigma = jnp.log(jnp.asarray(self.sigma))[::-1]
        log_normalizer = jnp.asarray(self.log_normalizer)[::-1]
        return jnp.interp(jnp.log(sigma), log_sigma, log_normalizer)

    @property
    def change(self) -> Array:
        """By how much more moves have raised it, in nats."""
        return self.log_normalizer - self.fewer_moves

    def __str__(self) -> str:
        rows = ["    sigma            log Z       with fewer moves  accepted"]
        shown = np.unique(np.linspace(0, len(self.sigma) - 1, 12).round().astype(int))
        for i in shown:
            more, error = self.log_normalizer[i], self.standard_error[i]
            fewer, fewer_error = self.fewer_moves[i], self.fewer_moves_error[i]
            rows.append(
                f"{self.sigma[i]:9.3g}  {more:+7.2f} +- {error:<5.2f}  "
                f"{fewer:+7.2f} +- {fewer_error:<5.2f}  {self.accept_prob[i]:8.2f}"
            )
        return "\n".join(rows)


def level_normalizers(
    prior: Any,
    key: Array,
    *,
    num_levels: int = 100,
    num_particles: int = 128,
    num_moves: int = 2,
) -> LevelNormalizers:
    r"""
    :math:`\log Z(\sigma) = \log \int e^{-U(x, \sigma)} dx` of the energy of a prior at every noise
    level; 0 where it is normalised. It is found by sequential Monte Carlo from the largest level,
    where it begins with importance sampling from a Gaussian, to the smallest (Del Moral, Doucet &
    Jasra 2006). With :math:`t = \sigma^2`, a particle goes from one level to the next, :math:`t' <
    t`, as the reverse process does,

    .. math::
        x' \sim N\left( x - (t - t') \nabla U(x, \sigma), v I \right), \qquad
        v = (1 - t'/t) \left( t' + (t - t') c \right),

    `c` being the mean of :math:`\tfrac1d \operatorname{tr} \nabla D`, and its weight is that of the
    way there and the way back, which adds noise:

    .. math::
        \frac{e^{-U(x', \sigma')}\, N(x; x', (t - t') I)}{e^{-U(x, \sigma)}\, q(x' \mid x)}.

    Particles are drawn anew by their weights, and moved by `num_moves` steps of MALA. This is done
    by four independent populations, whose spread is the error, and all of it **twice**, the second
    time with four times the moves: mass that a network has put where no data are is not found by
    short runs, and neither spread nor error tell of it. Rely on a value that more moves do not
    change. What is found is :math:`\log Z` of the mass that can be reached from the levels above.

    :param prior: a :class:`~numpyro_scores.DiffusionPrior` of an energy, whatever its
        `log_normalizer` is.
    :param key: a random key.
    :param num_levels: number of noise levels, geometric from the largest of the process to the
        smallest; the error goes as the root of their inverse.
    :param num_particles: number of particles of each population.
    :param num_moves: number of moves at each level, in the first run.
    :return: both runs. The cost is `4 * num_particles * num_levels` times `7 + 5 * num_moves`
        evaluations, most with a gradient.
    :raises ValueError: if the prior has no energy, or an argument is out of range.
    """
    energy = getattr(prior, "energy", None)
    if energy is None or not hasattr(prior, "process"):
        raise ValueError(
            "level_normalizers is of a DiffusionPrior that is made of an energy, energy(x, sigma) "
            f"-> (), got {prior!r}. The density of a denoiser comes from an integral, which is "
            "normalised."
        )
    key = check_key("level_normalizers", key)
    counts = {"num_levels": num_levels, "num_particles": num_particles, "num_moves": num_moves}
    for name, count in counts.items():
        check_count(name, count)
    if num_levels < 2:
        raise ValueError(f"num_levels must be at least 2, got {num_levels}.")
    ends = np.log([float(prior.process.sigma_max), float(prior.process.sigma_min)])
    levels = jnp.asarray(np.exp(np.linspace(*ends, num_levels)), float)
    runs = []
    for key_run, moves in zip(random.split(key), (num_moves, MORE_MOVES * num_moves), strict=True):
        found = compiled(
            _populations,
            prior.denoiser,
            levels,
            random.split(key_run, NUM_RUNS),
            event_shape=prior.event_shape,
            num_particles=num_particles,
            num_moves=moves,
        )
        runs.append(_combined(*found))
    (fewer, fewer_error, _), (log_z, error, accept_prob) = runs
    return LevelNormalizers(levels, log_z, error, fewer, fewer_error, accept_prob)


def _combined(log_z: Array, accept_prob: Array) -> tuple[Array, Array, Array]:
    """The logarithm of the mean of unbiased estimates, and its error by the delta method."""
    largest = jnp.max(log_z, axis=0)
    z = jnp.exp(log_z - largest)
    mean = jnp.mean(z, axis=0)
    error = jnp.std(z, axis=0, ddof=1) / jnp.sqrt(len(z)) / mean
    return largest + jnp.log(mean), error, jnp.mean(accept_prob, axis=0)


class _Particles(NamedTuple):
    """
    - **x** - particles, shape `(n, *event_shape)`.
    - **energy**, **grad** - at the level that they are at.
    - **step** - of a move, over the squared noise level.
    - **log_z** - of that level.
    """

    x: Array
    energy: Array
    grad: Array
    step: Array
    log_z: Array


def _populations(
    denoiser: Any,
    levels: Array,
    keys: Array,
    *,
    event_shape: Any,
    num_particles: int,
    num_moves: int,
) -> tuple[Array, Array]:
    """Of each population and level, :math:`\\log Z` and the acceptance probability."""

    def population(key: Array) -> tuple[Array, Array]:
        key_start, key_levels = random.split(key)
        shape = (num_particles, *event_shape)
        start, accepted = _start(denoiser, levels[0], key_start, shape, num_moves)
        step = partial(_next_level, denoiser.energy, num_moves)
        keys = random.split(key_levels, len(levels) - 1)
        _, (log_z, accept_prob) = lax.scan(step, start, (levels[:-1], levels[1:], keys))
        return (
            jnp.concatenate([start.log_z[None], log_z]),
            jnp.concatenate([accepted[None], accept_prob]),
        )

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
    particles = _Particles(x, energy, grad, step, jnp.zeros(()))
    return _resampled_and_moved(denoiser.energy, num_moves, particles, log_weights, sigma, key_rest)


def _next_level(
    energy: Any, num_moves: int, particles: _Particles, inputs: tuple[Array, Array, Array]
) -> tuple[_Particles, tuple[Array, Array]]:
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
    particles, accept_prob = _resampled_and_moved(
        energy, num_moves, moved, log_weights, after, key_rest
    )
    return particles, (particles.log_z, accept_prob)


def _resampled_and_moved(
    energy: Any, num_moves: int, particles: _Particles, log_weights: Array, sigma: Array, key: Array
) -> tuple[_Particles, Array]:
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
    return _Particles(x, value, grad, step, log_z), accept_prob


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
