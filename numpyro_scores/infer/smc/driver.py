# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The driver of a sampler of particles, with the face of NumPyro's `MCMC`."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.initialization import init_to_uniform
from tqdm import tqdm

from numpyro_scores._validation import check_count
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.infer.guards import check_normalizers
from numpyro_scores.infer.kernel import parted, same
from numpyro_scores.infer.langevin.adjusted import Point
from numpyro_scores.infer.langevin.mala import MALA
from numpyro_scores.infer.langevin.segments import Target
from numpyro_scores.infer.model import LatentSites
from numpyro_scores.infer.parts import diffusion_by_score, has_likelihood, wrapped
from numpyro_scores.infer.smc.moves import Moved, move_particles
from numpyro_scores.infer.smc.particle_model import ParticleModel
from numpyro_scores.infer.smc.population import MAX_ROUNDS, Population
from numpyro_scores.infer.smc.results import ParticleResults
from numpyro_scores.infer.trees import mapped, take

LARGEST_DENSE = 64
FEWEST_PARTICLES = 10


class ParticleSampler(ParticleResults, ABC):
    """
    A sampler of equally weighted particles. A subclass writes `_start` and `_round`, pure
    functions of a :class:`Population`.
    """

    _rung_name = "power"
    _advice = "Take more particles, or more num_prior_draws."

    def __init__(
        self,
        model: Callable,
        *,
        num_particles: int,
        num_steps: int,
        dense_mass: bool | None,
        target_accept_prob: float,
        segment_integral: LineIntegral,
        batch_size: int | None,
        progress_bar: bool,
    ):
        check_count("num_particles", num_particles)
        super().__init__(num_prior_draws=num_particles)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        self._kernel = MALA(
            model,
            num_steps=1,
            target_accept_prob=target_accept_prob,
            segment_integral=segment_integral,
        )
        check_count("num_steps", num_steps)
        self._num_particles = num_particles
        self._num_steps = num_steps
        self._dense_mass = dense_mass
        self._batch_size = batch_size or num_particles
        self._progress_bar = progress_bar
        self._programs: tuple[tuple, tuple[Callable, ...]] | None = None
        self._args: tuple = ()
        self._kwargs: dict[str, Any] = {}

    @abstractmethod
    def _start(self, key: Array, model: ParticleModel, given: Mapping[str, Array]) -> Population:
        """The particles of the first round."""

    @abstractmethod
    def _round(self, state: Population, model: ParticleModel) -> Population:
        """One round more."""

    def _check_sites(self, sites: LatentSites, values: dict, args: tuple, kwargs: dict) -> None:
        """Raise if the latent sites are none for this sampler; most take any."""
        del sites, values, args, kwargs

    def _run(self, rng_key: Array, args: tuple, kwargs: dict, given: Mapping[str, Array]) -> None:
        self._look(args, kwargs, given)
        arrays, rest, merge = parted((args, kwargs, given))
        if self._programs is None or not same(rest, self._programs[0]):
            self._programs = (rest, self._compiled(merge))
        start, advance, constrain = self._programs[1]
        try:
            state = start(rng_key, arrays)
        except jax.errors.JAXTypeError:  # a model that must see its data, to count groups, say
            data, arrays = arrays, []
            start, advance, constrain = self._compiled(lambda _: merge(data))
            state = start(rng_key, arrays)
        self._check_start(state)
        with tqdm(disable=not self._progress_bar, unit="round") as bar:
            while not state.is_done:
                if state.i >= MAX_ROUNDS:
                    raise RuntimeError(self._stuck(state))
                # One round a call is what a bar costs.
                until = state.i + 1 if self._progress_bar else MAX_ROUNDS
                state = advance(state, jnp.asarray(until), arrays)
                bar.update(int(state.i) - bar.n)
                bar.set_postfix_str(self._progress(state), refresh=False)
        # Resampling has sorted them; draws that look like a chain must not look like a slow one.
        shuffled = random.permutation(state.rng_key, self._num_particles)
        state = state._replace(
            points=take(state.points, shuffled),
            log_likelihood=state.log_likelihood[shuffled],
            ancestor=state.ancestor[shuffled],
        )
        self._samples = constrain(state.points.x, arrays)
        self._state = jax.device_get(state._replace(rng_key=random.key_data(state.rng_key)))
        self._args, self._kwargs = args, kwargs
        if (ess := self.rounds.ess.min()) < FEWEST_PARTICLES:
            warnings.warn(
                f"{type(self).__name__} was left with an effective sample size of {ess:.1f} in one "
                "round: all draws descend from so few, and neither they nor the error of the "
                f"evidence can be trusted. {self._advice}",
                UserWarning,
                stacklevel=3,
            )

    def _compiled(self, merge: Callable) -> tuple[Callable, ...]:
        model = self._kernel.model
        assert model is not None

        def start(key, arrays):
            args, kwargs, given = merge(arrays)
            return self._start(key, ParticleModel(model, args, kwargs), given)

        def advance(state, until, arrays):
            args, kwargs, _ = merge(arrays)
            particles = ParticleModel(model, args, kwargs)
            return lax.while_loop(
                lambda state: ~state.is_done & (state.i < until),
                lambda state: self._round(state, particles),
                state,
            )

        def constrain(x, arrays):
            args, kwargs, _ = merge(arrays)
            particles = ParticleModel(model, args, kwargs)
            return mapped(particles.constrained, x, self._batch_size)

        return jax.jit(start), jax.jit(advance), jax.jit(constrain)

    def _look(self, args: tuple, kwargs: dict, given: Mapping[str, Array]) -> None:
        """Raise if the model is none for this sampler."""
        name, model = type(self).__name__, self._kernel.model
        assert model is not None
        sites, values = LatentSites.of(model, random.key(0), init_to_uniform, args, kwargs)
        if discrete := sites.discrete + sites.enumerated:
            raise ValueError(
                f"{name} moves particles along gradients, but the latent sites {list(discrete)} "
                "are discrete: sum over them in the model (a mixture distribution), or sample "
                "with numpyro.infer.Gibbs and kernels for each."
            )
        if not values:
            raise ValueError(f"{name} needs a latent site, but the model has none.")
        self._check_sites(sites, values, args, kwargs)
        # Moves know diffusion priors by their score alone.
        check_normalizers(wrapped(diffusion_by_score, model), args, kwargs, values)
        for site, draws in given.items():
            n = self._num_prior_draws
            if site not in values or jnp.shape(draws) != (n, *values[site].shape):
                raise ValueError(
                    f"prior_draws are num_prior_draws = {n} values of latent "
                    f"sites, of {sorted(values)}; got {site!r} with shape {jnp.shape(draws)}."
                )
        self._latent = tuple(values)
        seeded = substitute(seed(model, random.key(0)), data=values)
        model_trace = trace(seeded).get_trace(*args, **kwargs)
        if not has_likelihood(model_trace):
            raise ValueError(
                f"{name} needs an observed site or a factor, but the model has only "
                f"{list(model_trace)}: give it data (run(key, y=...)), or draw from the prior "
                "with numpyro.infer.Predictive."
            )

    def _move(
        self, key: Array, points: Point, target: Target, step_size: Array
    ) -> tuple[Moved, int]:
        """Steps of MALA of all particles, and how many gradients and scores each costs."""
        n, d = points.x.shape
        dense = self._dense_mass
        if dense is None:
            dense = d <= min(LARGEST_DENSE, n // 10)
        moved = move_particles(
            key, points, target, self._kernel, step_size, self._num_steps, dense, self._batch_size
        )
        nodes = 0 if target.segment is None else self._kernel._segment_integral.num_nodes
        return moved, self._num_steps * (1 + nodes)

    def _check_start(self, state: Population) -> None:
        if state.num_dead == self._num_prior_draws:
            raise ValueError(
                f"The likelihood is zero or not a number at all {self._num_prior_draws} draws of "
                "the prior: look for NaN in the data and for data outside of the likelihood's "
                "support, or take more num_prior_draws."
            )

    def _stuck(self, state: Population) -> str:
        return (
            f"{type(self).__name__} has not reached the posterior after {MAX_ROUNDS} rounds "
            f"({self._progress(state)}): a smaller ess_fraction takes longer steps."
        )

    def _progress(self, state: Population) -> str:
        """What the progress bar says."""
        ess = int(state.rounds.ess[int(state.i) - 1])
        return f"{self._rung_name}={float(state.rung):.2e}, ess={ess}"

    @property
    def model(self) -> Callable:
        """The NumPyro model."""
        assert self._kernel.model is not None
        return self._kernel.model
