# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The sites of a model that are known by their score, and the model with and without them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.primitives import Messenger

from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.distributions import ScoreDistribution
from numpyro_scores.distributions._wrapped import base_of, with_base
from numpyro_scores.infer.langevin.targets import Target

Potential = Callable[[Array], Array]


def target_of(potential: Potential, x: Array, rule: SegmentIntegral | LineIntegral) -> Target:
    """
    :param potential: the potential energy of a model, of a vector.
    :param x: a point, only its shape and dtype matter.
    :param rule: how a segment is integrated.
    """
    if not score_sites(potential, x):
        return Target(potential)
    return Target(_without_score_sites(potential), jax.grad(_score_sites_alone(potential)), rule)


def score_distribution(fn: Any) -> ScoreDistribution | None:
    """The `ScoreDistribution` beneath `expand`, `to_event`, `mask` and `plate`, or None."""
    base = base_of(fn)
    return base if isinstance(base, ScoreDistribution) else None


def score_sites(potential: Potential, x: Array) -> tuple[str, ...]:
    """The names of the sites of a `ScoreDistribution` (nothing is computed)."""
    finder = _find_score_sites(potential)
    jax.eval_shape(finder, x)
    return tuple(finder.names)


class _find_score_sites(Messenger):
    """Note the names of the sites of a `ScoreDistribution`."""

    def __init__(self, fn: Callable | None = None):
        self.names: list[str] = []
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and score_distribution(msg["fn"]) is not None:
            self.names.append(msg["name"])


class _without_score_sites(Messenger):
    """Leave out each `ScoreDistribution`, value and gradient."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and score_distribution(msg["fn"]) is not None:
            msg["fn"] = msg["fn"].mask(False)  # a static mask: no score is evaluated


class _score_sites_alone(Messenger):
    """
    Leave out all but each `ScoreDistribution`, and of these the value; a scale, a mask and a plate
    act on their gradient as ever.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        if score_distribution(msg["fn"]) is not None:
            msg["fn"] = with_base(msg["fn"], _without_value)
        else:
            msg["fn"] = msg["fn"].mask(False)  # a static mask: XLA drops the whole likelihood


def _without_value(fn: ScoreDistribution) -> ScoreDistribution:
    fn = copy.copy(fn)
    fn.quadrature = _NoIntegral()
    return fn


@dataclass(frozen=True)
class _NoIntegral(LineIntegral):
    def __call__(self, score, reference, x):
        return jnp.zeros((), x.dtype)
