# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Parts of a model's density: each kept, left out or raised to a power."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from numpyro.distributions.distribution import MaskedDistribution
from numpyro.primitives import Messenger

from numpyro_scores._validation import is_concrete
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.distributions import DiffusionPrior, ScoreDistribution
from numpyro_scores.distributions._wrapped import with_base
from numpyro_scores.handlers import is_jacobian, is_likelihood, latent_prior, raise_to_power


class parts(Messenger):
    r"""
    Run a model with the parts of its density raised to powers; 0 leaves one out. Together they are
    the potential energy in the unconstrained space.

    :param fn: a model.
    :param likelihood: power of observed sites and factors.
    :param priors: power of latent noise-conditional priors.
    :param others: power of all other latent sites.
    :param jacobians: power of the Jacobians of the latent sites' transforms.
    """

    def __init__(
        self,
        fn: Callable | None = None,
        *,
        likelihood: Any = 1.0,
        priors: Any = 1.0,
        others: Any = 1.0,
        jacobians: Any = 1.0,
    ):
        self.powers = {
            "likelihood": likelihood,
            "priors": priors,
            "others": others,
            "jacobians": jacobians,
        }
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample":
            raise_to_power(msg, self.powers[_part_of(msg)])


def _part_of(msg: dict[str, Any]) -> str:
    if is_likelihood(msg):
        return "likelihood"
    if is_jacobian(msg):
        return "jacobians"
    return "others" if latent_prior(msg) is None else "priors"


def likelihood_to_power(model: Callable, power: Any) -> Callable:
    r"""The model of :math:`p(z)\, p(y \mid z)^\beta`."""
    return wrapped(parts, model, likelihood=power)


def likelihood_alone(model: Callable) -> Callable:
    """The model without the density of latent sites and the Jacobians of their transforms."""
    return wrapped(parts, model, priors=0, others=0, jacobians=0)


def without_priors(model: Callable) -> Callable:
    """The model without the density of latent noise-conditional priors."""
    return wrapped(parts, model, priors=0)


def others_alone(model: Callable) -> Callable:
    """The model without the likelihood, and without that density."""
    return wrapped(parts, model, likelihood=0, priors=0)


def has_likelihood(model_trace: Mapping[str, Any]) -> bool:
    """Whether a model has an observed site or a factor."""
    return any(is_likelihood(site) for site in model_trace.values())


def is_unscaled(scale: Any) -> bool:
    """Whether the scale of a site is known to leave its density as it is."""
    return scale is None or (is_concrete(scale) and bool(np.all(np.asarray(scale) == 1)))


def is_masked(fn: Any) -> bool:
    """Whether a mask may leave out the density of a distribution, or a part of it."""
    while hasattr(fn, "base_dist"):
        if isinstance(fn, MaskedDistribution):
            if not (is_concrete(fn._mask) and np.all(np.asarray(fn._mask))):
                return True
        fn = fn.base_dist
    return False


class diffusion_by_score(Messenger):
    """
    A :class:`~numpyro_scores.ScoreDistribution` in place of each latent `DiffusionPrior` that is
    not of an energy: its differences are then integrals of the score along a segment, of a few
    evaluations, and not those of its `log_prob`, of hundreds.

    :param fn: a model.
    :param quadrature: of the value that the `ScoreDistribution` has by itself.
    """

    def __init__(self, fn: Callable | None = None, quadrature: LineIntegral = LineIntegral()):
        self.quadrature = quadrature
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        prior = latent_prior(msg)
        if isinstance(prior, DiffusionPrior) and not prior.has_energy:
            msg["fn"] = with_base(msg["fn"], self._by_score)

    def _by_score(self, prior: DiffusionPrior) -> ScoreDistribution:
        score = jax.tree_util.Partial(_score, prior)
        return ScoreDistribution(score, prior.event_shape, quadrature=self.quadrature)


def _score(prior: DiffusionPrior, x: Array) -> Array:
    return prior.score(x)


def wrapped(messenger: Callable, model: Callable, **settings: Any) -> Callable:
    """A model under a messenger, entered anew at each call."""
    return partial(_run, messenger, model, settings)


def _run(messenger, model, settings, *args, **kwargs):
    return messenger(model, **settings)(*args, **kwargs)
