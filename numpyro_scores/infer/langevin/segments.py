# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Differences of a potential energy of which a part, :math:`S`, is known by its gradient alone:

.. math:: U(y) - U(x) = R(y) - R(x) + \int_0^1 \nabla S(x + t (y - x)) \cdot (y - x)\, dt.

`S` is minus the `log_prob` of the sites of a `ScoreDistribution`, `R` all the rest: other sites,
factors, Jacobians of transforms. The value that `ScoreDistribution.log_prob` has is an integral all
the way from its reference point; along the segment between two points of a chain a few nodes do.
Where they do not, as across the gap between two modes, the integral says so by its error, and the
chain does not go there. The error is that of the way back too: it remains reversible.
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
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.distributions import ScoreDistribution
from numpyro_scores.distributions._wrapped import base_of, with_base

Potential = Callable[[Array], Array]


class Point(NamedTuple):
    """
    - **x** - position, shape `(d,)`.
    - **energy** - `Target.energy` there: the potential energy, without what is known by scores.
    - **grad** - gradient of the whole potential energy, shape `(d,)`.
    - **integral** - what the sites known by scores add to `energy`: integrated along the path.
    - **force** - what they add to `grad`, shape `(d,)`; None if there are none.
    """

    x: Array
    energy: Array
    grad: Array
    integral: Array
    force: Array | None = None


class Transition(NamedTuple):
    """
    One draw of a chain.

    - **point** - where the chain is then.
    - **accept_prob** - mean acceptance probability of the proposals.
    - **diverging** - whether a proposal was not finite.
    - **unresolved** - share of the proposals that were refused because of the error of an integral.
    - **num_steps** - number of steps, each of one gradient.
    """

    point: Point
    accept_prob: Array
    diverging: Array
    unresolved: Array
    num_steps: Array | int = 1


class Target(NamedTuple):
    """
    A potential energy of vectors.

    - **energy** - `U`, or `R` if there are sites known by their score.
    - **force** - the gradient of `S`, or None if there are none.
    - **rule** - of the integral of the force.
    """

    energy: Potential
    force: Callable[[Array], Array] | None = None
    rule: SegmentIntegral | LineIntegral = SegmentIntegral()

    def at(self, x: Array, integral: Array | float = 0.0) -> Point:
        """The point at `x`."""
        energy, grad = jax.value_and_grad(self.energy)(x)
        return self._with_force(Point(x, energy, grad, jnp.asarray(integral, x.dtype)))

    def moved(self, point: Point, move: Array) -> Point:
        """A point further on, of which the energy is not asked: that may cost far more."""
        x = point.x + move
        return self._with_force(point._replace(x=x, grad=jax.grad(self.energy)(x)))

    def _with_force(self, point: Point) -> Point:
        if self.force is None:
            return point
        force = self.force(point.x)
        return point._replace(grad=point.grad + force, force=force)

    def rise(self, start: Point, end: Point) -> tuple[Array, Array]:
        """By how much `S` rises from one point to another, and the error that is measured of it."""
        zero = jnp.zeros_like(start.energy)
        if self.force is None:
            return zero, zero
        assert start.force is not None and end.force is not None
        # As the integral of a score is a log density, so that of a force is a potential energy.
        if isinstance(self.rule, LineIntegral):
            return self.rule(self.force, start.x, end.x), zero
        return self.rule(self.force, start.x, end.x, start.force, end.force)

    def is_known(self, error: Array) -> Array:
        """Whether a rise with this error may be relied on."""
        if isinstance(self.rule, LineIntegral):  # nobody measures
            return jnp.ones_like(error, bool)
        return error <= self.rule.tolerance

    @property
    def num_score_evals(self) -> int:
        """Scores of one rise, besides those at its ends."""
        return 0 if self.force is None else self.rule.num_score_evals


def init(position: Array, target: Target) -> Point:
    """Where a chain starts, for the functions `step` of the kernels."""
    return target.at(position)


def check_rule(rule: Any) -> None:
    if not isinstance(rule, SegmentIntegral | LineIntegral):
        raise ValueError(
            "segment_integral must be a SegmentIntegral, such as SegmentIntegral(num_nodes=7), "
            "or a LineIntegral, of any number of nodes and without a measure of its error; got "
            f"{rule!r}."
        )


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
