# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sequential Monte Carlo through the noise levels of priors that are made of an energy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores._validation import check_count
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer.diffusion.base import LARGEST_LEVEL
from numpyro_scores.infer.langevin import mala
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.parts import others_alone
from numpyro_scores.infer.smc.checks import check_energies
from numpyro_scores.infer.smc.gaussian_twist import GaussianTwist, axes_of, moments_of
from numpyro_scores.infer.smc.level_moves import LevelTarget, twisted
from numpyro_scores.infer.smc.level_sampler import LevelSampler, spaced_levels
from numpyro_scores.infer.smc.level_start import WALK, steered
from numpyro_scores.infer.smc.moves import first_step_size, fisher_root, move_particles
from numpyro_scores.infer.smc.population import (
    Population,
    no_rounds,
    resampled_population,
    rounds_with,
)
from numpyro_scores.infer.smc.reverse_step import LevelPoint, ReverseStep, ReverseTarget
from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.trees import map_rows

NUM_PILOTS = 256  # draws of the priors, for their moments
WITHIN = 1 - 1e-6  # of the largest level
NUM_MOVES = 3  # of sites other than diffusion priors, at each level


class NoiseLevelSMC(LevelSampler):
    r"""
    Sequential Monte Carlo through the noise levels :math:`\sigma_0 > \dots > \sigma_K` of diffusion
    priors that are **made of an energy**, :math:`U(x, \sigma) = -\log p_\sigma(x)`, along

    .. math:: \pi_k(x, \theta) \propto e^{-U(x, \sigma_k)}\, p(\theta)\, g_k(x, \theta),

    whose last is the posterior. A level costs one evaluation of the energy with its gradient for
    the weight, and one for each move: some 180 with the start and the end, by default.

    The data speak from the first level on, by :math:`g_k(x, \theta) \approx p(y \mid
    x_{\sigma_k} = x, \theta)`: what they say of the mean of the value given the noisy point, which
    the gradient of the energy knows, :math:`m(x) = x + \tau^2 \nabla \log p_\sigma(x)` (Tweedie's
    formula), if it is as uncertain as it would be were the prior the Gaussian of its own moments,
    which are found by 256 draws of it. That asks the network nothing more, and is not to be right:
    weights and moves are of :math:`\pi_k` as it is. Particles go from level to level by a step `K`
    of the reverse process, a Gaussian about :math:`x + \Delta \nabla \log p_k(x)`,
    :math:`\Delta = \sigma_k^2 - \sigma_{k+1}^2`, given the data, and the way back is the noise
    between the two levels:

    .. math:: w = \frac{\pi_{k+1}(x', \theta)\, N(x; x', \Delta I)}
                       {\pi_k(x, \theta)\, K(x' \mid x, \theta)}

    (annealed importance sampling, Neal 2001, with the reversal in time of a diffusion, Doucet et
    al. 2022, "Score-based diffusion meets annealed importance sampling"; a twist of a diffusion,
    Wu et al. 2023). Of a Gaussian prior with these moments and linear data all weights are equal.
    At the largest level other sites begin where the data want them, by powers of the likelihood of
    the Gaussian, which asks no network either. Resampled particles make three Metropolis steps of
    all sites beside the priors, a noise scale for example, and `num_level_steps` steps of MALA of
    everything. At the end moves leave the posterior as it is, as those of
    :class:`~numpyro_scores.TemperedSMC` do.

    Exact as the number of particles grows. The evidence is that of the energy as it is: of one
    whose :math:`\log Z` at the smallest level is not 0 it has that added, see
    :func:`~numpyro_scores.diagnostics.level_normalizers`.

    :param model: a NumPyro model with data and at least one :class:`~numpyro_scores.DiffusionPrior`
        of an energy, no prior of which depends on another latent site, nor another on it.
    :param num_particles: number of draws.
    :param num_levels: number of noise levels, from the largest of the priors' processes to the
        smallest that a prior has in the model, at equal distances of :math:`\operatorname{arsinh}
        (s / \sigma)` with the standard deviation `s` of the priors' draws: most of them where
        :math:`\sigma < s`, since above it the density hardly differs from its Gaussian.
    :param num_level_steps: number of steps of MALA at each level.
    :param num_steps: number of steps at the end.
    :param dense_mass: as of :class:`~numpyro_scores.TemperedSMC`, and so all that follow.
    :raises ValueError: if an argument is out of its range, or at `run` if the model has no
        noise-conditional prior, one of a denoiser, or one that depends on another latent site.
    """

    _advice = "Take more particles, or more num_levels."

    def __init__(
        self,
        model: Callable,
        num_particles: int = 1_000,
        *,
        num_levels: int = 80,
        num_level_steps: int = 1,
        num_steps: int = 10,
        dense_mass: bool | None = None,
        target_accept_prob: float = 0.574,
        batch_size: int | None = None,
        progress_bar: bool = True,
    ):
        super().__init__(
            model,
            mala.step,
            num_particles=num_particles,
            num_steps=num_steps,
            dense_mass=dense_mass,
            target_accept_prob=target_accept_prob,
            segment_integral=SegmentIntegral(),
            batch_size=batch_size,
            progress_bar=progress_bar,
        )
        self._set_num_levels(num_levels)
        check_count("num_level_steps", num_level_steps)
        self._num_level_steps = num_level_steps
        self._target_accept_prob = target_accept_prob

    def run(self, rng_key: Array, *args: Any, **kwargs: Any) -> None:
        """
        Draw from the posterior. A second run with data of the same shapes compiles nothing, if the
        model has not changed. May be traced, by `jax.vmap` over keys and data for example.

        :param rng_key: key of the run.
        :param args: arguments of the model; arrays among them are traced, unless it must see them.
        :param kwargs: keyword arguments of the model.
        :raises ValueError: as :meth:`TemperedSMC.run`, and if the noise-conditional priors are
            none, of denoisers, or not independent of all other sites.
        """
        self._run(rng_key, args, kwargs, {})

    def _check_sites(self, sites, values, args, kwargs):
        super()._check_sites(sites, values, args, kwargs)
        check_energies(type(self).__name__, self.model, args, kwargs, values)

    def _start(self, key, model, given):
        keys = random.split(key, 6)
        key_pilots, key_draws, key_others, key_noise, key_resample, rng_key = keys
        n, draw = self._num_particles, model.draw
        pilots = jax.vmap(lambda key: draw(key, {}))(random.split(key_pilots, NUM_PILOTS))
        of_model = DiffusionTwist(model)
        moments = moments_of(pilots, of_model)
        moments = moments._replace(axes=axes_of(moments, of_model, pilots[0]))
        x = jax.vmap(lambda key: draw(key, {}, LARGEST_LEVEL))(random.split(key_draws, n))
        # Within the process: at its end the energy, which is clipped there, has half a slope.
        sigma = jnp.asarray(WITHIN * self._levels[0], x.dtype)
        twist = GaussianTwist(model, moments, sigma, x[0])
        others = steered(key_others, x, twist, sigma, self._batch_size)
        # From the Gaussian, where the energy nearly is one.
        root = jnp.linalg.cholesky(moments.covariance + jnp.diag(twist.added_noise))
        noise = random.normal(key_noise, (n, len(root)), x.dtype)
        x = others.x.at[:, twist.noisy].set(moments.mean + noise @ root.T)
        log_start = -jnp.sum(noise**2 + jnp.log(2 * jnp.pi), axis=1) / 2
        log_start -= jnp.sum(jnp.log(jnp.diagonal(root)))
        points = self._points(x, ReverseTarget(twist, sigma))
        potential = model.potential(others_alone(model.model))
        log_weights = map_rows(potential, x, self._batch_size) - points.energy - log_start
        log_weights -= others.log_twist
        state = Population(
            i=jnp.array(0),
            points=points,
            log_likelihood=-points.energy,
            ancestor=others.ancestor,
            rung=sigma,
            step_size=first_step_size(x),
            prior_precision=jnp.zeros(0, x.dtype),
            log_evidence=others.log_evidence,
            relative_variance=others.relative_variance,
            num_dead=jnp.sum(~jnp.isfinite(points.energy)),
            is_done=jnp.array(False),
            rounds=no_rounds(x.dtype),
            rng_key=rng_key,
            moments=moments,
        )
        cost = 1 + -(-NUM_PILOTS * _evals_of_draws(model, x[0]) // n)
        figures = {"rung": sigma, "num_grad_evals": cost, "accept_prob": 1.0}
        state = resampled_population(key_resample, state, _known(log_weights), n, at=0, **figures)
        figures = {
            "ess": jnp.minimum(state.rounds.ess[0], others.ess),
            "log_increment": state.rounds.log_increment[0] + others.log_evidence,
        }
        return state._replace(rounds=rounds_with(state.rounds, 0, **figures))

    def _points(self, x: Array, target: ReverseTarget) -> LevelPoint:
        zero = jnp.zeros((), x.dtype)
        return map_rows(lambda x: target.at(x, zero), x, self._batch_size)

    def _round(self, state, model):
        return lax.cond(
            state.i == self._num_levels,
            lambda: self._ended(state, model),
            lambda: self._level(state, model),
        )

    def _ended(self, state: Population, model: FlatModel) -> Population:
        end = self._moved_in_the_end(state, model)
        # Nothing asks any more for what the way down needs.
        points = state.points._replace(x=end.points.x, energy=end.points.energy)
        return end._replace(points=points._replace(grad=end.points.grad))

    def _level(self, state: Population, model: FlatModel) -> Population:
        """From one noise level to the next."""
        keys = random.split(state.rng_key, 5)
        key_step, key_walk, key_moves, key_resample, rng_key = keys
        x, sigma = state.points.x, state.rung
        spread = jnp.sqrt(jnp.mean(jnp.diagonal(state.moments.covariance)))
        levels = spaced_levels(self._levels[0], self._levels[-1], spread, self._num_levels)
        new_sigma = levels[state.i]
        here = GaussianTwist(model, state.moments, sigma, x[0])
        there = GaussianTwist(model, state.moments, new_sigma, x[0])
        # For all particles, of what they stand for.
        about = jnp.mean(x, axis=0)
        step = ReverseStep(here, there, sigma, new_sigma, about)
        moved, log_ratio = map_rows(
            lambda particle: step(*particle),
            (random.split(key_step, len(x)), state.points),
            self._batch_size,
        )
        target = ReverseTarget(there, new_sigma)
        points = self._points(moved, target)
        log_weights = state.points.energy - points.energy + log_ratio
        state = state._replace(
            points=points, log_likelihood=-points.energy, rung=new_sigma, rng_key=rng_key
        )
        i = state.i
        figures = {"rung": new_sigma}
        state = resampled_population(
            key_resample, state, _known(log_weights), self._num_particles, i, **figures
        )
        points: Any = self._walked(key_walk, state.points, target)
        steps: Any = target  # it has the face of a Target
        root = fisher_root(points.grad, self._move.is_dense(*x.shape))
        moved = move_particles(
            key_moves,
            points,
            lambda key, point, h: mala.step(key, point, steps, h, root),
            step_size=state.step_size,
            num_steps=self._num_level_steps,
            target_accept_prob=self._target_accept_prob,
            batch_size=self._batch_size,
        )
        cost = 1 + self._num_level_steps
        return state._replace(
            points=moved.points,
            log_likelihood=-moved.points.energy,
            step_size=moved.step_size,
            rounds=rounds_with(state.rounds, i, **moved.figures(), num_grad_evals=cost),
        )

    def _walked(self, key: Array, points: LevelPoint, target: ReverseTarget) -> LevelPoint:
        """
        After steps of the sites beside the priors, which need no evaluation of an energy: it stays.
        """
        twist = target.of_data
        num_others = points.x.shape[1] - len(twist.noisy)
        if not num_others:
            return points
        scale = WALK / np.sqrt(num_others) * fisher_root(points.grad, dense=False)
        others = twist.model.potential(others_alone(twist.model.model))

        def walk(particle):
            key, point = particle
            local = target.twist(point.x, point.score, point.share)
            before = LevelTarget(local, target.sigma).twist(point.x)
            after = twisted(key, point.x, local, target.sigma, scale, NUM_MOVES).point
            change = after.energy + others(after.x) - before.energy - others(point.x)
            return point._replace(
                x=after.x,
                energy=point.energy + change,
                grad=point.grad + after.grad - before.grad,
            )

        return map_rows(walk, (random.split(key, len(points.x)), points), self._batch_size)


def _known(log_weights: Array) -> Array:
    """A particle whose energy is not a number, which one made of a network may be, has none."""
    return jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)


def _evals_of_draws(model: FlatModel, x: Array) -> int:
    """What draws of the priors cost: evaluations of their denoisers."""
    sites = model.sites(x).values()
    priors = [noise_conditional_prior(site["fn"]) for site in sites]
    return sum(getattr(prior.sampler, "num_steps", 40) for prior in priors if prior is not None)
