# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sequential Monte Carlo from the prior to the posterior, through powers of the likelihood."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._validation import check_count
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.langevin import mala
from numpyro_scores.infer.langevin.targets import Point
from numpyro_scores.infer.smc.driver import ParticleSampler
from numpyro_scores.infer.smc.moves import first_step_size, points_at
from numpyro_scores.infer.smc.population import (
    Population,
    no_rounds,
    resampled_population,
    rounds_with,
)
from numpyro_scores.infer.smc.weights import incremental_log_weights, next_power, resampled
from numpyro_scores.infer.trees import map_rows


class TemperedSMC(ParticleSampler):
    r"""
    Sequential Monte Carlo (Del Moral, Doucet & Jasra 2006) along

    .. math:: \pi_\beta(z) \propto p(z)\, p(y | z)^\beta, \qquad 0 = \beta_0 < \dots < \beta_T = 1,

    for any NumPyro model with continuous latent sites. Draws of the prior are weighted by
    :math:`p(y | z)^{\beta_{t+1} - \beta_t}`, resampled, and moved by steps of MALA that leave
    :math:`\pi_{\beta_{t+1}}` as it is. Each power is as large as the effective sample size of the
    weights allows (Jasra et al. 2011). The modes of the posterior come from the draws, each with
    its weight, and need not be reached by a chain; the product of the mean weights is the evidence.

    Weights need the likelihood alone. So a prior that is known by its score has no disadvantage
    here: its density enters the acceptance of moves, by an integral of the score along the segment
    from a particle to its proposal (see :class:`~numpyro_scores.MALA`), and nothing else. A
    :class:`~numpyro_scores.DiffusionPrior` is treated so, and its `log_prob` is never computed.

    Noise scales, sites on which the scale of observed sites depends, make a funnel with what is
    measured. Up to eight of them move in one block with all else (Knorr-Held & Rue 2002), in place
    of MALA, and a round repeats its steps until little is left of where they were.

    Exact as the number of particles grows. A mode in which no draw of the prior lies is missed
    without a sign: `num_prior_draws` is cheap insurance, since only `num_particles` are moved.

    :param model: a NumPyro model with data; all its latent sites are drawn from their priors.
    :param num_particles: number of draws that are kept, moved and returned.
    :param num_prior_draws: number of draws of the prior, by default twice `num_particles`, of which
        the first round resamples those that are kept.
    :param num_steps: number of steps a round; with noise scales repeated, up to ten times.
    :param ess_fraction: effective sample size of the weights of a round over the number of
        particles. A larger one means more rounds, and less variance for the same number of steps.
    :param dense_mass: whether the metric is a matrix or a diagonal; by default a matrix up to 64
        dimensions, if there are ten particles for each.
    :param target_accept_prob: what the step size, corrected after each step, aims at; of blocks
        with noise scales at most 0.44.
    :param segment_integral: as of :class:`~numpyro_scores.MALA`, with three scores a step besides
        the one at its end. What it refuses is told by `rounds.unresolved`.
    :param batch_size: how many particles the model sees at once, by default all of
        `num_particles`: less for a large network.
    :param progress_bar: whether to show the rounds. It asks for one call a round in place of one.
    :raises ValueError: if an argument is out of its range.

    **References**

    1. Del Moral, Doucet & Jasra (2006), "Sequential Monte Carlo samplers".
    2. Jasra, Stephens, Doucet & Tsagaris (2011), "Inference for Levy-driven stochastic volatility
       models via adaptive sequential Monte Carlo".
    3. Knorr-Held & Rue (2002), "On block updating in Markov random field models for disease
       mapping".
    4. Zhou, Johansen & Aston (2016), "Toward automatic model comparison: an adaptive sequential
       Monte Carlo approach".
    """

    def __init__(
        self,
        model: Callable,
        num_particles: int = 2_000,
        *,
        num_prior_draws: int | None = None,
        num_steps: int = 2,
        ess_fraction: float = 0.9,
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

        num_prior_draws = 2 * num_particles if num_prior_draws is None else num_prior_draws
        check_count("num_prior_draws", num_prior_draws)
        if num_prior_draws < num_particles:
            raise ValueError(
                f"num_prior_draws must be at least num_particles, {num_particles}, got "
                f"{num_prior_draws}."
            )
        if not 0 < ess_fraction < 1:
            raise ValueError(f"ess_fraction must be in (0, 1), got {ess_fraction!r}.")
        self._num_prior_draws = num_prior_draws
        self._ess_fraction = ess_fraction

    def run(
        self,
        rng_key: Array,
        *args: Any,
        prior_draws: Mapping[str, Array] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Draw from the posterior. A second run with data of the same shapes compiles nothing, if the
        model has not changed. May be traced, by `jax.vmap` over keys and data for example.

        :param rng_key: key of the run.
        :param args: arguments of the model; arrays among them are traced, unless it must see them.
        :param prior_draws: draws of some latent sites, `num_prior_draws` along the first axis, in
            place of new ones: from a long chain for a site that cannot be drawn from, or from an
            earlier run, since draws of the prior serve all data. They must be of the prior, and
            not depend on sites that are drawn anew.
        :param kwargs: keyword arguments of the model.
        :raises ValueError: if the model has a discrete latent site, no latent site, or neither an
            observed site nor a factor; if a site cannot be drawn from, or its density is scaled or
            masked; if the density changes with the model's random key; if a density that is known
            by its score, that of a diffusion prior too, depends on another latent site; if the
            likelihood is zero or not a number at every draw; or if `prior_draws` do not fit.
        :raises RuntimeError: if the posterior is not reached in 1,000 rounds.
        """
        self._run(rng_key, args, kwargs, dict(prior_draws or {}))

    def _start(self, key, model, given):
        key_draws, key_resample, rng_key = random.split(key, 3)
        n, m = self._num_particles, self._num_prior_draws
        keys = random.split(key_draws, m)
        x = map_rows(lambda draw: model.draw(*draw), (keys, given), self._batch_size)
        log_likelihood = map_rows(model.log_likelihood, x, self._batch_size)
        # More draws than particles can afford to lose more of them.
        ess = min(n, self._ess_fraction * m)
        power = next_power(log_likelihood, jnp.zeros((), x.dtype), ess)
        log_weights = incremental_log_weights(log_likelihood, jnp.zeros_like(power), power)
        selection = resampled(key_resample, x, log_weights, jnp.arange(m), m, n)
        rows = selection.rows
        target = model.tempered(power, x[0], self._move.rule)
        points = points_at(x[rows], target, self._batch_size)
        return Population(
            i=jnp.array(0),
            points=points,
            log_likelihood=log_likelihood[rows],
            ancestor=rows,
            rung=power,
            step_size=first_step_size(x),
            prior_precision=self._move.prior_precision(points, power, model),
            log_evidence=selection.log_increment,
            relative_variance=selection.variance,
            num_dead=jnp.sum(~jnp.isfinite(log_likelihood)),
            is_done=jnp.array(False),
            rounds=rounds_with(no_rounds(x.dtype), 0, rung=power, **selection.figures()),
            rng_key=rng_key,
        )

    def _round(self, state, model):
        """Moves at the current power, and the weights of the next, which after 1 are all alike."""
        key_moves, key_resample, rng_key = random.split(state.rng_key, 3)
        moved, cost = self._move(
            key_moves, state.points, model, state.rung, state.step_size, state.prior_precision
        )
        log_likelihood = map_rows(model.log_likelihood, moved.points.x, self._batch_size)
        power = next_power(log_likelihood, state.rung, self._ess_fraction * self._num_particles)
        log_weights = incremental_log_weights(log_likelihood, state.rung, power)
        # The first round has also evaluated its particles where they began.
        cost = cost + (state.i == 0)
        moved_state = state._replace(
            points=moved.points,
            log_likelihood=log_likelihood,
            step_size=moved.step_size,
            is_done=state.rung == 1,
            rounds=rounds_with(state.rounds, state.i, num_grad_evals=cost, **moved.figures()),
            rng_key=rng_key,
        )
        new = resampled_population(
            key_resample, moved_state, log_weights, self._num_prior_draws, state.i + 1, rung=power
        )
        points = self._at_power(new.points, model, power - state.rung)
        return new._replace(points=points, rung=power)

    def _at_power(self, points: Point, model, increment: Array) -> Point:
        """Energies and gradients at a larger power, without another score of the prior."""

        def at_power(point):
            value, grad = jax.value_and_grad(model.log_likelihood)(point.x)
            return point._replace(
                energy=point.energy - increment * value, grad=point.grad - increment * grad
            )

        return map_rows(at_power, points, self._batch_size)
