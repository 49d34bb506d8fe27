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
from numpyro.infer.initialization import init_to_uniform
from tqdm import tqdm

from numpyro_scores._validation import check_count, check_key, is_concrete
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.guards import check_model, check_normalizers
from numpyro_scores.infer.kernel import are_equal, arrays_and_rest
from numpyro_scores.infer.model import FlatModel, LatentSites
from numpyro_scores.infer.parts import diffusion_by_score, wrapped
from numpyro_scores.infer.smc.checks import check_sampled
from numpyro_scores.infer.smc.moves import Mutation, first_step_size, points_at
from numpyro_scores.infer.smc.population import MAX_ROUNDS, Population, rounds_with
from numpyro_scores.infer.smc.programs import agree, fingerprint
from numpyro_scores.infer.smc.results import ParticleResults
from numpyro_scores.infer.smc.weights import FEWEST_PARTICLES
from numpyro_scores.infer.trees import map_rows, take

LARGEST_STUCK = 0.02  # of all particles


class ParticleSampler(ParticleResults, ABC):
    """
    A sampler of equally weighted particles. A subclass writes `_start` and `_round`, pure
    functions of a :class:`Population`.

    :param step: of one particle, see :class:`Mutation`.
    """

    _rung_name = "power"
    _advice = "Take more particles, or more num_prior_draws."

    def __init__(
        self,
        model: Callable,
        step: Callable,
        *,
        num_particles: int,
        num_steps: int,
        dense_mass: bool | None,
        target_accept_prob: float,
        segment_integral: SegmentIntegral | LineIntegral,
        batch_size: int | None,
        progress_bar: bool,
    ):
        check_model(type(self).__name__, model)
        check_count("num_particles", num_particles)
        super().__init__(num_prior_draws=num_particles)
        self._model = model
        self._num_particles = num_particles
        self._batch_size = num_particles if batch_size is None else batch_size
        self._move = Mutation(
            step, segment_integral, target_accept_prob, num_steps, dense_mass, self._batch_size
        )
        self._move.check()
        self._progress_bar = progress_bar
        self._programs: tuple[tuple, Any, tuple[Callable, ...]] | None = None
        self._args: tuple = ()
        self._kwargs: dict[str, Any] = {}

    @abstractmethod
    def _start(self, key: Array, model: FlatModel, given: Mapping[str, Array]) -> Population:
        """The particles of the first round."""

    @abstractmethod
    def _round(self, state: Population, model: FlatModel) -> Population:
        """One round more."""

    def _moved_in_the_end(self, state: Population, model: FlatModel) -> Population:
        """The last round of a path whose last density is the posterior: moves alone."""
        key_moves, rng_key = random.split(state.rng_key)
        x = state.points.x
        target = model.tempered(1.0, x[0], self._move.rule)
        points = points_at(x, target, self._batch_size)
        precision = self._move.prior_precision(points, 1.0, model)
        moved, cost = self._move(key_moves, points, model, 1.0, first_step_size(x), precision)
        x = moved.points.x
        figures = {"rung": state.rung, "ess": len(x), "num_grad_evals": cost + 1}
        return state._replace(
            i=state.i + 1,
            points=moved.points._replace(force=None),  # the rounds before have none
            log_likelihood=map_rows(model.log_likelihood, x, self._batch_size),
            step_size=moved.step_size,
            is_done=jnp.array(True),
            rounds=rounds_with(state.rounds, state.i, **figures, **moved.figures()),
            rng_key=rng_key,
        )

    def _check_sites(self, sites: LatentSites, values: dict, args: tuple, kwargs: dict) -> None:
        """Raise if the latent sites are none for this sampler; most take any."""
        del sites, values, args, kwargs

    def _run(self, rng_key: Array, args: tuple, kwargs: dict, given: Mapping[str, Array]) -> None:
        check_key(f"{type(self).__name__}.run", rng_key)
        self._look(args, kwargs, given)
        arrays, rest, merge = arrays_and_rest((args, kwargs, given))
        is_traced = not all(is_concrete(value) for value in (rng_key, *arrays))
        programs = self._compiled(merge) if is_traced else self._compiled_once(arrays, rest, merge)
        try:
            state = programs[0](rng_key, arrays)
        except jax.errors.JAXTypeError:  # a model that must see its data, to count groups, say
            data, arrays = arrays, []
            programs = self._compiled(lambda _: merge(data))
            state = programs[0](rng_key, arrays)
        advance, constrain = programs[1:]
        if is_traced:
            state = advance(state, jnp.asarray(MAX_ROUNDS), arrays)
            state = state._replace(
                log_evidence=jnp.where(state.is_done, state.log_evidence, jnp.nan)
            )
        else:
            self._check_start(state)
            state = self._advanced(advance, state, arrays)
        # Resampling has sorted them; draws that look like a chain must not look like a slow one.
        shuffled = random.permutation(state.rng_key, self._num_particles)
        state = state._replace(
            points=take(state.points, shuffled),
            log_likelihood=state.log_likelihood[shuffled],
            ancestor=state.ancestor[shuffled],
        )
        self._samples = constrain(state.points.x, arrays)
        state = state._replace(rng_key=random.key_data(state.rng_key))
        self._state = state if is_traced else jax.device_get(state)
        self._args, self._kwargs = args, kwargs
        if not is_traced:
            self._warn()

    def _advanced(self, advance: Callable, state: Population, arrays: list[Array]) -> Population:
        """The state after all rounds."""
        with tqdm(disable=not self._progress_bar, unit="round") as bar:
            while not state.is_done:
                if state.i >= MAX_ROUNDS:
                    raise RuntimeError(self._stuck(state))
                # One round a call is what a bar costs.
                until = state.i + 1 if self._progress_bar else MAX_ROUNDS
                state = advance(state, jnp.asarray(until), arrays)
                bar.update(int(state.i) - bar.n)
                bar.set_postfix_str(self._progress(state), refresh=False)
        return state

    def _warn(self) -> None:
        """Say what makes draws and evidence doubtful."""
        name, rounds = type(self).__name__, self.rounds
        if (ess := rounds.ess.min()) < FEWEST_PARTICLES:
            warnings.warn(
                f"{name} was left with an effective sample size of {ess:.1f} in one round: all "
                "draws descend from so few, and neither they nor the evidence can be trusted. "
                f"{self._advice}",
                UserWarning,
                stacklevel=4,
            )
        stuck = int(rounds.num_stuck[-1])
        if stuck > LARGEST_STUCK * self._num_particles:
            warnings.warn(
                f"{name}: {stuck} of {self._num_particles} particles could not move in the last "
                "round, each of their proposals being all but sure to be refused. The posterior is "
                "much narrower there than elsewhere, as in the neck of a funnel, and draws and "
                "evidence lack what lies further down, more than the error of the evidence says. "
                "Take a parametrisation in which the posterior is of one width, more num_steps, or "
                "compare with another sampler.",
                UserWarning,
                stacklevel=4,
            )

    def _compiled_once(self, arrays: list[Array], rest: tuple, merge: Callable) -> tuple:
        """What an earlier run compiled, if the model is still the same function."""

        def everything(key, x, arrays):
            args, kwargs, given = merge(arrays)
            model = FlatModel(self.model, args, kwargs)
            target = model.tempered(1.0, x, self._move.rule)
            return (
                model.draw(key, take(given, 0)),
                jax.value_and_grad(target.energy)(x),
                jax.value_and_grad(model.log_likelihood)(x),
                model.constrained(x),
            )

        try:
            args, kwargs, _ = merge(arrays)
            like = jax.eval_shape(FlatModel(self.model, args, kwargs).flat)
            found = fingerprint(everything, random.key(0), like, arrays)
        except jax.errors.JAXTypeError:
            return self._compiled(merge)
        is_known = self._programs is not None and are_equal(rest, self._programs[0])
        if not (is_known and agree(found, self._programs[1])):
            self._programs = (rest, found, self._compiled(merge))
        return self._programs[2]

    def _compiled(self, merge: Callable) -> tuple[Callable, ...]:
        def start(key, arrays):
            args, kwargs, given = merge(arrays)
            return self._start(key, FlatModel(self.model, args, kwargs), given)

        def advance(state, until, arrays):
            args, kwargs, _ = merge(arrays)
            particles = FlatModel(self.model, args, kwargs)
            return lax.while_loop(
                lambda state: ~state.is_done & (state.i < until),
                lambda state: self._round(state, particles),
                state,
            )

        def constrain(x, arrays):
            args, kwargs, _ = merge(arrays)
            particles = FlatModel(self.model, args, kwargs)
            return map_rows(particles.constrained, x, self._batch_size)

        return jax.jit(start), jax.jit(advance), jax.jit(constrain)

    def _look(self, args: tuple, kwargs: dict, given: Mapping[str, Array]) -> None:
        """Raise if the model is none for this sampler."""
        name, model = type(self).__name__, self._model
        sites, values = LatentSites.of(model, random.key(0), init_to_uniform, args, kwargs)
        if discrete := sites.discrete + sites.enumerated:
            raise ValueError(
                f"{name} moves particles along gradients, but the latent sites {list(discrete)} "
                "are discrete: sum over them in the model (a mixture distribution), or sample "
                "with numpyro.infer.Gibbs and kernels for each."
            )
        if not values:
            raise ValueError(f"{name} needs a latent site, but the model has none.")
        check_sampled(name, model, args, kwargs, values)
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
        return self._model

    @property
    def sample_field(self) -> str:
        """MCMC asks its kernels for it."""
        raise TypeError(
            f"{type(self).__name__} is not a kernel of MCMC, but a sampler with a face like its "
            f"own: sampler = {type(self).__name__}(model); sampler.run(jax.random.key(0), ...); "
            "sampler.get_samples()."
        )
