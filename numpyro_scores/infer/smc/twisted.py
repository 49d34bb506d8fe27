# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sequential Monte Carlo through the noise levels of a diffusion prior, twisted by the data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.adaptation import corrected_step_size
from numpyro_scores.infer.diffusion.base import LARGEST_LEVEL
from numpyro_scores.infer.langevin import mala
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.directions import MANY_DIRECTIONS
from numpyro_scores.infer.smc.exponential_steps import in_steps
from numpyro_scores.infer.smc.level_moves import LevelMoves, Twisted, twisted
from numpyro_scores.infer.smc.level_sampler import LevelSampler
from numpyro_scores.infer.smc.linear_data import data_basis
from numpyro_scores.infer.smc.moves import fisher_root
from numpyro_scores.infer.smc.population import (
    Population,
    no_rounds,
    resampled_population,
)
from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.smc.twist_noise import informed_noise, reversing_level, steers_by_numbers
from numpyro_scores.infer.smc.twist_widths import NUM_PILOTS, added_variances
from numpyro_scores.infer.trees import map_rows

NUM_MOVES = 3  # of sites other than diffusion priors, at each level
CHURN = 0.5
NUM_FLOW_STEPS = 3  # from level to level, of many data
LARGEST_CARRIED = 2**27  # numbers of the directions that go with all particles
MOVES_ACCEPT_PROB = 0.35  # 0.44 is optimal in one dimension, 0.234 in many


class TwistedDiffusionSampler(LevelSampler):
    r"""
    Sequential Monte Carlo through the noise levels :math:`\sigma_0 > \dots > \sigma_K` of the
    diffusion priors of a model, along

    .. math:: \pi_k(x) \propto p_{\sigma_k}(x)\, g_k(x), \qquad
              g_k(x) \approx E[p(y | x_{\sigma_K}) \mid x_{\sigma_k} = x],

    for data so informative that too few draws of the prior itself would meet them. The last level
    is that of the priors in the model, where :math:`g_K` is the likelihood itself.

    From level to level a particle gets some noise, up to the level :math:`\hat\sigma = \sigma_k
    (\sigma_k / \sigma_{k+1})^c`, and follows the probability flow down to :math:`\sigma_{k+1}`
    (as in Karras et al. 2022, algorithm 2). Both carry draws of :math:`p_{\sigma_k}` to draws of
    :math:`p_{\sigma_{k+1}}`, so that the weight is :math:`g_{k+1}(x_{k+1}) / g_k(x_k)`, whatever
    `g` is: neither a density of the prior is needed nor that of a reverse step, and coarse levels
    make no error but that of the flow. The noise is drawn with the mean and the covariance that up
    to 64 Normal numbers give it and 16 of other laws, or 1,024 that are linear, or with the mean
    :math:`s^2 \nabla \log g_k`, for its variance :math:`s^2 = \hat\sigma^2 - \sigma_k^2`, and the
    weight makes up for it, as in the twisted diffusion sampler (Wu et al. 2023, "Practical and
    asymptotically exact conditional sampling in diffusion models"). How much
    wider `g` must be than a learned denoiser says is measured first, by data made of a hundred
    draws of the prior. Then all other sites :math:`\theta`, a noise scale
    for example, make three Metropolis steps of a random walk, which leave :math:`p(\theta)\,
    g_{k+1}(x, \theta)` as it is and share one evaluation of the denoiser. Where every
    noise-conditional prior is made of an energy, :math:`p_{\sigma_k}` is known, and MALA steps of
    `x` and :math:`\theta` together leave :math:`\pi_k` as it is. At the end such steps leave the
    posterior as it is.

    Exact as the numbers of particles and of levels grow.

    :param model: a NumPyro model with data and at least one noise-conditional prior, such as
        :class:`~numpyro_scores.DiffusionPrior`. Its other latent sites start from draws of their
        priors; they must not depend on these, nor these on them.
    :param num_particles: number of draws.
    :param num_levels: number of geometric noise levels, from the largest of the priors' processes
        to the smallest that a prior has in the model. Each prior keeps within its own.
    :param churn: :math:`c`, how far the noise rises at each level, over how far it falls in all.
        At 1 the path is that of the reverse diffusion; with few levels less noise is better: 0.5 by
        default. Where the covariance of more than 64 numbers is known, the default is the noise
        with which a value is as correlated with what it becomes as in the reverse diffusion, were
        it Normal of the variance that the denoiser has: between 0.5 and 1, and the weights of many
        data vary much less.
    :param num_steps: number of steps of MALA at the end.
    :param num_level_steps: the same at each level, where the priors are made of energies; or 0.
    :param dense_mass: as of :class:`~numpyro_scores.TemperedSMC`, and so all that follow.
    :raises ValueError: if an argument is out of its range, or at `run` if the model has no
        noise-conditional prior, or one that depends on another latent site or another on it.

    A level costs three evaluations of the denoiser for the flow, two for the twist with its
    gradient, one more for the noise of numbers with a covariance, and products with its Jacobian:
    two for each of up to 16 numbers that are not Normal and of up to 16 that are, 18 for up to 64,
    or where their means depend on other sites, and one for more. Of up to 1,024 that are
    linear in the value it takes nine for the flow, four more and 25 products, which go with the
    particles to the noise; 26 more where particles and dimensions are too many to keep these.
    """

    _advice = "Take more particles, or use TemperedSMC."

    def __init__(
        self,
        model: Callable,
        num_particles: int = 2_000,
        *,
        num_levels: int = 24,
        churn: float | None = None,
        num_steps: int = 10,
        num_level_steps: int = 2,
        dense_mass: bool | None = None,
        target_accept_prob: float = 0.574,
        segment_integral: SegmentIntegral | LineIntegral = SegmentIntegral(num_nodes=5),
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
            segment_integral=segment_integral,
            batch_size=batch_size,
            progress_bar=progress_bar,
        )
        self._set_num_levels(num_levels)
        if churn is not None:
            check_positive("churn", churn)
        if num_level_steps != 0:
            check_count("num_level_steps", num_level_steps)
        self._move_at_level = LevelMoves(num_level_steps, target_accept_prob, self._batch_size)
        self._churn = churn

    def run(self, rng_key: Array, *args: Any, **kwargs: Any) -> None:
        """
        Draw from the posterior. A second run with data of the same shapes compiles nothing, if the
        model has not changed. May be traced, by `jax.vmap` over keys and data for example.

        :param rng_key: key of the run.
        :param args: arguments of the model; arrays among them are traced, unless it must see them.
        :param kwargs: keyword arguments of the model.
        :raises ValueError: as :meth:`TemperedSMC.run`, and if the noise-conditional priors are
            none, or not independent of all other sites.
        """
        self._run(rng_key, args, kwargs, {})

    def _check_start(self, state):
        if state.num_dead == self._num_particles:
            raise ValueError(
                f"The likelihood of the denoised values is zero or not a number at all "
                f"{self._num_particles} particles of the largest noise level, whose denoised "
                "values are near the mean of the prior: look for NaN in the data. Of a likelihood "
                "that is zero there, TemperedSMC(model) needs draws of the prior alone."
            )

    def _start(self, key, model, given):
        key_draws, key_resample, rng_key = random.split(key, 3)
        n = self._num_particles
        # The priors clip this level to the largest of their process, where a draw is mere noise.
        x = jax.vmap(lambda key: model.draw(key, {}, LARGEST_LEVEL))(random.split(key_draws, n))
        sigma = jnp.asarray(self._levels[0], x.dtype)
        # No moves yet, the sites beside being exact draws: the key stays unused.
        added, cost = self._added_variances(random.fold_in(key_draws, 0), model)
        twist = self._twist(model, added)
        particles = self._twisted(key_draws, x, twist, sigma, jnp.zeros_like(x[0]), 0)
        points = particles.point
        state = Population(
            i=jnp.array(0),
            points=points,
            log_likelihood=-points.energy,
            ancestor=jnp.arange(n),
            rung=sigma,
            step_size=jnp.ones_like(sigma),
            prior_precision=jnp.zeros(0, x.dtype),
            log_evidence=jnp.zeros_like(sigma),
            relative_variance=jnp.zeros_like(sigma),
            num_dead=jnp.sum(~jnp.isfinite(points.energy)),
            is_done=jnp.array(False),
            rounds=no_rounds(x.dtype),
            rng_key=rng_key,
            added_variances=added,
            seen=particles.seen,
        )
        figures = {"rung": sigma, "num_grad_evals": 2 + cost, "accept_prob": 1.0}
        return resampled_population(key_resample, state, -points.energy, n, at=0, **figures)

    def _twist(self, model: FlatModel, added: Array | None = None) -> DiffusionTwist:
        twist = DiffusionTwist(model, self._levels, added)
        x = model.flat()
        if twist.has_covariance(x):
            return twist
        return DiffusionTwist(model, self._levels, added, data_basis(twist, x))

    def _churned(self, x: Array, twist: DiffusionTwist, sigma: Array, new_sigma: Array) -> Array:
        """Where the noise rises to."""
        if self._churn is None and twist.basis is not None:
            return reversing_level(x, twist, sigma, new_sigma, self._batch_size)
        return sigma * (sigma / new_sigma) ** (self._churn or CHURN)

    def _added_variances(self, key: Array, model: FlatModel) -> tuple[Array, int]:
        """
        Of each noise level, by pilots of their own: given these, the evidence is unbiased. And what
        that costs each particle.
        """
        key_draws, key = random.split(key)
        twist = self._twist(model)
        num = min(NUM_PILOTS, self._num_particles)
        x = jax.vmap(lambda key: model.draw(key, {}, LARGEST_LEVEL))(random.split(key_draws, num))
        levels = jnp.asarray(self._levels, x.dtype)
        added = added_variances(key, x, twist, levels, self._batch_size)
        cost = num * self._num_levels * (4 + twist.num_products(x[0]))
        return added, -(-cost // self._num_particles)

    def _twisted(
        self,
        key: Array,
        x: Array,
        twist: DiffusionTwist,
        sigma: Array,
        scale: Array,
        num_moves: int = NUM_MOVES,
    ) -> Twisted:
        """The particles at a noise level, after moves of the sites beside diffusion priors."""
        keeps = MANY_DIRECTIONS * x.size <= LARGEST_CARRIED

        def one(particle):
            found = twisted(*particle, twist, sigma, scale, num_moves)
            return found if keeps else found._replace(seen=None)

        return map_rows(one, (random.split(key, len(x)), x), self._batch_size)

    def _round(self, state, model):
        return lax.cond(
            state.i == self._num_levels,
            lambda: self._moved_in_the_end(state, model),
            lambda: self._level(state, model),
        )

    def _level(self, state: Population, model: FlatModel) -> Population:
        """From one noise level to the next."""
        key_noise, key_moves, key_resample, rng_key = random.split(state.rng_key, 4)
        twist, x = self._twist(model, state.added_variances), state.points.x
        levels = jnp.asarray(self._levels, x.dtype)
        sigma, new_sigma = state.rung, levels[state.i]
        churned = self._churned(x, twist, sigma, new_sigma)  # within the levels of each prior

        def raised(row):
            *particle, seen = row
            return informed_noise(*particle, twist, sigma, churned, new_sigma, seen)

        risen, log_ratio = map_rows(
            raised,
            (random.split(key_noise, len(x)), x, -state.points.grad, state.seen),
            self._batch_size,
        )
        # The error of the flow counts for each of the data.
        num_steps = 1 if twist.basis is None else NUM_FLOW_STEPS
        x = map_rows(
            lambda x: in_steps(twist.flow, x, churned, new_sigma, num_steps),
            risen,
            self._batch_size,
        )
        scale = state.step_size * fisher_root(state.points.grad, dense=False)
        particles = self._twisted(key_moves, x, twist, new_sigma, scale)
        log_weights = log_ratio + state.points.energy + particles.log_twist
        accept_prob = jnp.mean(particles.accept_prob)
        state = state._replace(
            points=particles.point,
            log_likelihood=-particles.point.energy,
            seen=particles.seen,
            rung=new_sigma,
            step_size=corrected_step_size(state.step_size, accept_prob, MOVES_ACCEPT_PROB),
            rng_key=rng_key,
        )
        figures = {
            "rung": new_sigma,
            "num_grad_evals": _num_scores(twist, x[0], state.seen is not None),
            "accept_prob": accept_prob,
        }
        state = resampled_population(
            key_resample, state, log_weights, self._num_particles, state.i, **figures
        )
        return self._move_at_level(random.fold_in(key_moves, 1), state, twist)


def _num_scores(twist: DiffusionTwist, x: Array, keeps: bool) -> int:
    """
    Evaluations of the denoiser, or products with its Jacobian, at a level.

    :param keeps: whether the noise knows the directions of the twist.
    """
    products, lines = twist.num_products(x), twist.num_lines(x)
    flow_and_twist = 5 + products + lines
    if not steers_by_numbers(twist, x):
        return flow_and_twist
    of_the_level = 0 if twist.basis is None else 2 + 3 * (NUM_FLOW_STEPS - 1)
    of_the_noise = 0 if keeps and not lines else 1 + (0 if keeps else products)
    return flow_and_twist + of_the_noise + lines + of_the_level
