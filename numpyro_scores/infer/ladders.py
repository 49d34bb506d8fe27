# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Ladders of densities, from the target to one that is easy to move in, for replica exchange."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.handlers import scale

from numpyro_scores._validation import check_count, is_concrete
from numpyro_scores.handlers import noise_level, transformed_prior
from numpyro_scores.infer.noise_paths import expected_value
from numpyro_scores.infer.parts import has_likelihood, likelihood_to_power, wrapped

RUNG = "_rung"  # reserved model keyword through which the rung travels

# Draws of the first window of warmup that tunes a ladder; each later one is twice as long.
FIRST_WINDOW = 16

# The cumulative rejection must increase to have an inverse.
MIN_REJECTION = 1e-3


@dataclass(frozen=True)
class Ladder(ABC):
    """
    At least two rungs, the target's first. Any density is allowed on the others: only the replica
    on the first rung is collected.
    """

    rungs: tuple[float, ...]

    def __post_init__(self):
        rungs = np.asarray(self.rungs, float)
        if rungs.ndim != 1 or rungs.size < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two rungs in one dimension, got shape "
                f"{rungs.shape}."
            )
        object.__setattr__(self, "rungs", tuple(rungs.tolist()))
        self._check_rungs(rungs)

    @abstractmethod
    def _check_rungs(self, rungs: np.ndarray) -> None:
        """Raise unless the rungs start at the target and go one way."""

    @abstractmethod
    def tempered(self, model: Callable, rung: Any) -> Callable:
        """The model at a rung, a scalar that may be a tracer."""

    def coordinate(self, rungs: Array) -> Array:
        """Where rungs are tuned: a monotone function of them, by default the logarithm."""
        return jnp.log(rungs)

    def from_coordinate(self, coordinates: Array) -> Array:
        """The inverse of :meth:`coordinate`."""
        return jnp.exp(coordinates)

    def tuned(self, rungs: Array, rejection: Array) -> Array:
        r"""
        The rungs at equal shares of the cumulative rejection, ends fixed: the inverse of
        :math:`\Lambda(\beta_k) = \sum_{j < k} r_j`, linear between the rungs, at
        :math:`k \Lambda / N` (Syed et al. 2021, algorithm 2).

        :param rungs: shape `(R,)`.
        :param rejection: probability that a swap of two neighbours is refused, shape `(R - 1,)`.
        """
        barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.maximum(rejection, MIN_REJECTION))])
        shares = jnp.linspace(0, barrier[-1], len(rungs))[1:-1]
        inner = self.from_coordinate(jnp.interp(shares, barrier, self.coordinate(rungs)))
        return rungs.at[1:-1].set(inner)

    @abstractmethod
    def check_model(self, model_trace: Mapping[str, Any]) -> None:
        """Raise if the first rung isn't the model of this trace, or if no rung differs from it."""

    def wrap(self, model: Callable) -> Callable:
        """The model, with its rung as the keyword argument :data:`RUNG`."""
        return partial(_run_at_rung, self, model)


def window_ends(num_warmup: int) -> np.ndarray:
    """Numbers of draws of warmup after which a ladder is tuned."""
    num_rounds = int(np.log2(num_warmup / FIRST_WINDOW + 1))
    return FIRST_WINDOW * (2 ** np.arange(1, num_rounds + 1) - 1)


def _run_at_rung(ladder: Ladder, model: Callable, *args: Any, **kwargs: Any) -> Any:
    rung = kwargs.pop(RUNG)
    return ladder.tempered(model, rung)(*args, **kwargs)


@dataclass(frozen=True)
class InverseTemperatures(Ladder):
    r"""
    :math:`\pi_\beta(z) \propto \pi(z)^\beta` in the unconstrained space of the model: the potential
    energy is :math:`\beta U(z)`, with prior, likelihood and the transforms' Jacobians alike
    (Geyer 1991). Flat on top, so that modes meet, even those of the prior.

    :param rungs: inverse temperatures :math:`\beta`, from 1 down, positive.
    :raises ValueError: unless the rungs start at 1, decrease and are positive.
    """

    def _check_rungs(self, rungs: np.ndarray) -> None:
        _check_from_one_down(self, rungs, rungs[-1] > 0, "above 0")

    def tempered(self, model: Callable, rung: Any) -> Callable:
        return scale(model, scale=rung)

    def check_model(self, model_trace: Mapping[str, Any]) -> None:
        """Every model can be tempered."""


@dataclass(frozen=True)
class LikelihoodPowers(Ladder):
    r"""
    :math:`\pi_\beta(z) \propto p(z)\, p(y \mid z)^\beta`: observed sites and factors to a power,
    the prior as it is, down to the prior itself at 0. For posteriors whose modes the data make.

    :param rungs: powers :math:`\beta`, from 1 down to 0 or above.
    :raises ValueError: unless the rungs start at 1, decrease and are not negative; at `init`, if
        the model has neither an observed site nor a factor.
    """

    def _check_rungs(self, rungs: np.ndarray) -> None:
        _check_from_one_down(self, rungs, rungs[-1] >= 0, "at 0 or above")

    def tempered(self, model: Callable, rung: Any) -> Callable:
        return likelihood_to_power(model, rung)

    def coordinate(self, rungs: Array) -> Array:
        return rungs  # a power may be 0

    def from_coordinate(self, coordinates: Array) -> Array:
        return coordinates

    def check_model(self, model_trace: Mapping[str, Any]) -> None:
        if not has_likelihood(model_trace):
            raise ValueError(
                f"LikelihoodPowers needs an observed site or a factor, but the model has only "
                f"{list(model_trace)}: give it data, or use InverseTemperatures."
            )


@dataclass(frozen=True)
class NoiseLevels(Ladder):
    r"""
    :math:`\pi_\sigma(z) \propto p_\sigma(x)\, p(y \mid x)`: every noise-conditional prior of the
    model (:class:`~numpyro_scores.DiffusionPrior`) at noise level :math:`\sigma`, where its modes
    run together. The likelihood sees the value itself, not the denoised one: the first rung must
    be the model, and on the others that would only cost more.

    A swap compares values of the log densities of the priors, which cost hundreds of evaluations of
    a denoiser. With `num_path_steps` no value is needed: each replica goes to the level of the
    other along the probability flow of the priors, which carries :math:`p_{\sigma_i}` to
    :math:`p_{\sigma_j}`, and what is left of the ratio is that of the likelihoods, see
    :mod:`~numpyro_scores.infer.noise_paths`. On the way up the likelihood then sees the mean of the
    value given the noisy one, and `Normal` data are wider by what that leaves open. Kernels with a
    `segment_integral` (:class:`~numpyro_scores.MALA` and others) move by integrals of the score.

    The flow takes `num_path_steps` steps of third order in the logarithm of the noise level, 3
    evaluations each, on the way from rung to rung: **exact as they grow**. The error of the
    logarithm of the ratio falls with their third power; 10 to 24 in all between 0.05 and 100 are
    within 1% in the spread of a component. Twice as many show whether they matter.

    :param rungs: noise levels, from that of the priors in the model, by default the `sigma_min` of
        their process, up to at most its `sigma_max`.
    :param num_path_steps: number of steps of the flow between two rungs; None swaps by values.
    :raises ValueError: unless the rungs are positive and increase, and the steps are a number
        above 0; at `init`, if a prior is at another noise level than the first, if its process ends
        below the last, if the model has no such prior, or with steps one that is beneath a
        transform, scaled, or inside of `scan` or `cond`.
    """

    num_path_steps: int | None = None

    def _check_rungs(self, rungs: np.ndarray) -> None:
        if not (np.all(np.isfinite(rungs)) and np.all(np.diff(rungs) > 0) and rungs[0] > 0):
            raise ValueError(
                "NoiseLevels must be finite, positive and strictly increasing (from the noise "
                f"level of the model's priors up), got {rungs}."
            )
        if self.num_path_steps is not None:
            check_count("num_path_steps", self.num_path_steps)

    def tempered(self, model: Callable, rung: Any) -> Callable:
        if self.num_path_steps is not None:
            return wrapped(expected_value, model, level=rung)
        return noise_level(model, sigma=rung)

    def check_model(self, model_trace: Mapping[str, Any]) -> None:
        priors = {
            name: transformed_prior(site["fn"])
            for name, site in model_trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        priors = {name: prior for name, prior in priors.items() if prior is not None}
        if not priors:
            raise ValueError(
                f"NoiseLevels needs a noise-conditional prior, but the sites {list(model_trace)} "
                "have none: use a DiffusionPrior for one of them, or another ladder."
            )
        first, last = self.rungs[0], self.rungs[-1]
        for name, prior in priors.items():
            start = prior.at(first).sigma  # clipped to the levels of its own process
            if is_concrete(prior.sigma) and not np.isclose(start, prior.sigma, rtol=1e-5):
                raise ValueError(
                    f"NoiseLevels must start at the noise level of the prior of site {name!r} in "
                    f"the model, {prior.sigma}, so that the first rung is the target; got {first}."
                )
            if last > prior.process.sigma_max * (1 + 1e-6):
                raise ValueError(
                    f"NoiseLevels end at {last}, but the process of the prior of site {name!r} "
                    f"at {prior.process.sigma_max}: choose levels within, or train for more."
                )


def _check_from_one_down(ladder: Ladder, rungs: np.ndarray, ends_well: bool, end: str) -> None:
    if not (rungs[0] == 1 and np.all(np.diff(rungs) < 0) and ends_well):
        raise ValueError(
            f"{type(ladder).__name__} must start at 1, the target, whose replica is the one that "
            f"is collected, and decrease strictly to an end {end}; got {rungs}."
        )
