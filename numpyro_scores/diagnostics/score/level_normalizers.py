# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether an energy of every noise level is normalised, at each."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics.score.level_populations import populations

# The second run makes so many times the moves of the first.
MORE_MOVES = 4
# Populations whose spread is the error.
NUM_RUNS = 8


class LevelNormalizers(NamedTuple):
    r"""
    What :func:`level_normalizers` returns; a row of each array is a noise level. As a function of
    the noise level it is :math:`\log Z` between the rows, for `log_normalizer` of a
    :class:`~numpyro_scores.DiffusionPrior`.

    - **sigma** - the noise levels, from large to small.
    - **log_normalizer** - :math:`\log Z`, by the run with more moves.
    - **standard_error** - of that, as the standard deviation of Student's t with as many degrees of
      freedom as there are populations but one; where the two runs differ by more than their errors,
      both errors are larger by that factor.
    - **fewer_moves** - :math:`\log Z` by the run with a quarter of the moves.
    - **fewer_moves_error** - of that.
    - **ess** - share of the particles that carried the weight at a level, of the population and of
      the run where it was smallest.
    - **accept_prob** - mean acceptance probability of the moves.
    - **particles** - of the smallest level, by the run with more moves, shape `(8, num_particles,
      *event_shape)`: what the energy holds for likely there, to be looked at.
    """

    sigma: Array
    log_normalizer: Array
    standard_error: Array
    fewer_moves: Array
    fewer_moves_error: Array
    ess: Array
    accept_prob: Array
    particles: Array

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
        rows = ["    sigma            log Z       with fewer moves   ess  accepted"]
        shown = np.unique(np.linspace(0, len(self.sigma) - 1, 12).round().astype(int))
        for i in shown:
            more, error = self.log_normalizer[i], self.standard_error[i]
            fewer, fewer_error = self.fewer_moves[i], self.fewer_moves_error[i]
            rows.append(
                f"{self.sigma[i]:9.3g}  {more:+7.2f} +- {error:<5.2f}  "
                f"{fewer:+7.2f} +- {fewer_error:<5.2f}  {self.ess[i]:4.2f}  "
                f"{self.accept_prob[i]:8.2f}"
            )
        return "\n".join(rows)


def level_normalizers(
    prior: Any,
    key: Array,
    *,
    num_levels: int = 100,
    num_particles: int = 64,
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
    by eight independent populations, whose spread is the error, and all of it **twice**, the second
    time with four times the moves: mass that a network has put where no data are is not found by
    short runs, and no spread tells of it. A difference between the two runs raises the error of
    both (Birge's ratio); rely on a value that more moves do not change. What is found is
    :math:`\log Z` of the mass that can be reached from the levels above.

    :param prior: a :class:`~numpyro_scores.DiffusionPrior` of an energy, whatever its
        `log_normalizer` is.
    :param key: a random key.
    :param num_levels: number of noise levels, geometric from the largest of the process to the
        smallest; the error goes as the root of their inverse.
    :param num_particles: number of particles of each population.
    :param num_moves: number of moves at each level, in the first run.
    :return: both runs. The cost is `8 * num_particles * num_levels` times `7 + 5 * num_moves`
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
            populations,
            prior.denoiser,
            levels,
            random.split(key_run, NUM_RUNS),
            event_shape=prior.event_shape,
            num_particles=num_particles,
            num_moves=moves,
        )
        *figures, particles = found
        runs.append(_combined(*figures))
    (fewer, fewer_error, fewer_ess, _), (log_z, error, ess, accept_prob) = runs
    error, fewer_error = _with_disagreement(log_z, error, fewer, fewer_error)
    smallest = jnp.minimum(ess, fewer_ess)
    return LevelNormalizers(
        levels, log_z, error, fewer, fewer_error, smallest, accept_prob, particles
    )


def _with_disagreement(
    one: Array, error: Array, other: Array, other_error: Array
) -> tuple[Array, Array]:
    """Both errors, larger by the factor at which the two values agree to one error (Birge 1932)."""
    total = jnp.maximum(jnp.hypot(error, other_error), jnp.finfo(error.dtype).tiny)
    ratio = jnp.maximum(jnp.abs(one - other) / total, 1)
    return ratio * error, ratio * other_error


def _combined(log_z: Array, ess: Array, accept_prob: Array) -> tuple[Array, Array, Array, Array]:
    """
    The logarithm of the mean of unbiased estimates, and its error by the delta method; the spread
    of few is itself uncertain, so that the error is the standard deviation of Student's t.
    """
    num = len(log_z)
    largest = jnp.max(log_z, axis=0)
    z = jnp.exp(log_z - largest)
    mean = jnp.mean(z, axis=0)
    spread = jnp.std(z, axis=0, ddof=1) / jnp.sqrt(num) / mean
    error = spread * np.sqrt((num - 1) / (num - 3))
    return (
        largest + jnp.log(mean),
        error,
        jnp.min(ess, axis=0),
        jnp.mean(accept_prob, axis=0),
    )
