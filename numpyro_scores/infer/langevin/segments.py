# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Differences of a potential energy of which a part, :math:`S`, is known by its gradient alone:

.. math:: U(y) - U(x) = R(y) - R(x) + \int_0^1 \nabla S(x + t (y - x)) \cdot (y - x)\, dt.

`S` is minus the `log_prob` of the sites of a `ScoreDistribution`, `R` all the rest: other sites,
factors, Jacobians of transforms. The value that `ScoreDistribution.log_prob` has is an integral all
the way from its reference point; along the segment between two points of a chain a few nodes do.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.primitives import Messenger

from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.distributions import ScoreDistribution
from numpyro_scores.distributions._wrapped import base_of, with_base

Potential = Callable[[Array], Array]


class Target(NamedTuple):
    """
    A potential energy `U` of vectors: `U(y) - U(x) = energy(y) - energy(x) + segment(x, y)`.

    - **energy** - `U`, or `R` with the gradient of `U` if there are sites known by their score.
    - **segment** - the line integral, or None if there are none.
    """

    energy: Potential
    segment: Callable[[Array, Array], Array] | None = None


def target_of(potential: Potential, x: Array, quadrature: LineIntegral) -> Target:
    """
    :param potential: the potential energy of a model, of a vector.
    :param x: a point, only its shape and dtype matter.
    :param quadrature: how a segment is integrated.
    """
    if not score_sites(potential, x):
        return Target(potential)
    force = jax.grad(_without_score_values(potential, alone=True))
    # As the integral of a score is a log density, so that of a force is a potential energy.
    return Target(_without_score_values(potential), lambda x, y: quadrature(force, x, y))


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


class _without_score_values(Messenger):
    """
    Leave out the value of each `ScoreDistribution`, and keep its gradient; a scale, a mask and a
    plate act on that as ever. With `alone=True` leave out all other sites, value and gradient.
    """

    def __init__(self, fn: Callable | None = None, alone: bool = False):
        self.alone = alone
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        if score_distribution(msg["fn"]) is not None:
            msg["fn"] = with_base(msg["fn"], _without_value)
        elif self.alone:
            msg["fn"] = msg["fn"].mask(False)  # a static mask: XLA drops the whole likelihood


def _without_value(fn: ScoreDistribution) -> ScoreDistribution:
    fn = copy.copy(fn)
    fn.quadrature = _NoIntegral()
    return fn


@dataclass(frozen=True)
class _NoIntegral(LineIntegral):
    def __call__(self, score, reference, x):
        return jnp.zeros((), x.dtype)
