# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Parts of a model's density: the likelihood alone, and diffusion priors by their score."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array
from numpyro.primitives import Messenger

from numpyro_scores.distributions import DiffusionPrior, ScoreDistribution
from numpyro_scores.distributions._wrapped import base_of, with_base
from numpyro_scores.handlers import latent_prior
from numpyro_scores.infer.ladders import _is_likelihood


class likelihood_alone(Messenger):
    """Leave out the density of latent sites, with the Jacobians of their transforms."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and not _is_likelihood(msg):
            msg["fn"] = msg["fn"].mask(False)  # a static mask: XLA drops the density


class others_alone(Messenger):
    """Leave out the likelihood, and the density of latent noise-conditional priors."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and (_is_likelihood(msg) or latent_prior(msg) is not None):
            msg["fn"] = msg["fn"].mask(False)  # a static mask: nothing of it is computed


class diffusion_by_score(Messenger):
    """
    A :class:`~numpyro_scores.ScoreDistribution` in place of each latent `DiffusionPrior`: its
    differences are then integrals of the score along a segment, of a few evaluations, and not
    those of its `log_prob`, of hundreds.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        if (
            msg["type"] == "sample"
            and not msg["is_observed"]
            and isinstance(base_of(msg["fn"]), DiffusionPrior)
        ):
            msg["fn"] = with_base(msg["fn"], _by_score)


def _by_score(prior: DiffusionPrior) -> ScoreDistribution:
    return ScoreDistribution(jax.tree_util.Partial(_score, prior), prior.event_shape)


def _score(prior: DiffusionPrior, x: Array) -> Array:
    return prior.score(x)


def has_likelihood(model_trace: Any) -> bool:
    """Whether a model has an observed site or a factor."""
    return any(_is_likelihood(site) for site in model_trace.values())


def wrapped(messenger: Callable, model: Callable, **settings: Any) -> Callable:
    """A model under a messenger, entered anew at each call."""
    return partial(_run, messenger, model, settings)


def _run(messenger, model, settings, *args, **kwargs):
    return messenger(model, **settings)(*args, **kwargs)
