# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A step of isokinetic dynamics in a model's potential energy, for MAMS and MCLMC."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, random

from numpyro_scores.infer.langevin.targets import (
    Point,
    Root,
    Target,
    unwhiten,
    whiten,
)
from numpyro_scores.infer.trees import scan_random
from numpyro_scores.integrators.isokinetic import (
    MINIMAL_NORM,
    Splitting,
    mixed,
    refreshment,
    turned,
)


class Course(NamedTuple):
    """
    - **point** - where it is.
    - **direction** - in the coordinates of the metric, of length one.
    - **slope** - the gradient there in the coordinates of the metric, which the next step begins
      with; None if the metric is a diagonal, where one product a number is cheaper than memory.
    """

    point: Point
    direction: Array
    slope: Array | None


class Move(NamedTuple):
    """
    - **end** - the course behind it.
    - **kinetic** - by how much the kinetic energy rose.
    - **doubt** - the error that is measured of the integral of scores.
    """

    end: Course
    kinetic: Array
    doubt: Array


def set_out(point: Point, direction: Array, root: Root) -> Course:
    """Where a flight or a trajectory begins."""
    is_elementwise = root is None or (isinstance(root, Array) and root.ndim == 1)
    return Course(point, direction, None if is_elementwise else whiten(root, point.grad))


def isokinetic_step(
    start: Course,
    target: Target,
    step_size: Array,
    root: Root,
    splitting: Splitting,
    is_energy_asked: bool,
) -> Move:
    r"""
    One step.

    :param start: of :func:`set_out`, or the end of the step before.
    :param step_size: of a coordinate: a step is :math:`\sqrt d` times as long.
    :param root: of the inverse metric, by which steps are scaled.
    :param is_energy_asked: whether the end knows its energy; else it has that of the start.
    """
    point, direction, slope = start
    time = step_size * math.sqrt(point.x.size)
    slope = whiten(root, point.grad) if slope is None else slope
    direction, kinetic = turned(direction, slope, time * splitting.turns[0])
    doubt = jnp.zeros_like(point.energy)
    last = len(splitting.moves) - 1
    for k, (share, turn) in enumerate(zip(splitting.moves, splitting.turns[1:], strict=True)):
        jump = unwhiten(root, time * share * direction)
        point, error = target.leap(point, jump, is_energy_asked and k == last)
        doubt = doubt + error
        slope = whiten(root, point.grad)
        direction, more = turned(direction, slope, time * turn)
        kinetic = kinetic + more
    kept = None if start.slope is None else slope
    return Move(Course(point, direction, kept), kinetic, doubt)


def check_can_turn(kernel: str, x: Array) -> None:
    """Raise unless there are two numbers at least."""
    if x.size < 2:
        raise ValueError(
            f"{kernel} needs at least two unconstrained numbers, got one: the direction of "
            "isokinetic dynamics has nowhere to turn. Take NUTS, MALT or MALA."
        )


class Flight(NamedTuple):
    """
    - **point**, **direction** - where it ends; the direction in the coordinates of the metric.
    - **energy_variance** - mean over the steps of the squared error of the energy, a dimension.
    """

    point: Point
    direction: Array
    energy_variance: Array


def flight(
    key: Array,
    point: Point,
    direction: Array,
    target: Target,
    step_size: Array,
    decoherence_length: Array,
    root: Root = None,
    splitting: Splitting = MINIMAL_NORM,
    num_steps: int = 1,
) -> Flight:
    r"""
    Steps of Langevin dynamics, after each of which the direction is partly refreshed. Where they
    leave the finite numbers, so does the `energy_variance`; the direction is then a new one.

    :param point: of :func:`~numpyro_scores.infer.langevin.targets.init`.
    :param step_size: of a coordinate: a step is :math:`\sqrt d` times as long; likewise the length
        on which the direction is forgotten.
    :param root: of the inverse metric, by which steps are scaled.
    """
    d = point.x.size

    def draw(key, shape):
        return random.normal(key, (*shape, d), point.x.dtype)

    def one(start, noise):
        new, kinetic, doubt = isokinetic_step(
            start, target, step_size, root, splitting, is_energy_asked=True
        )
        (end, direction, _), begin = new, start.point
        error = end.energy - begin.energy + (end.integral - begin.integral) + kinetic
        # Where the dynamics have left the finite numbers, the noise alone makes the direction.
        is_finite = jnp.isfinite(error)
        direction = jnp.where(is_finite, direction, 0.0)
        direction = mixed(direction, noise, kept, fresh)
        # An integral that is not known tells no energy.
        is_known = target.is_known(doubt)
        error = jnp.where(is_known | ~is_finite, error, 0.0)
        return new._replace(direction=direction), (error**2 / d, is_known)

    # The same of all steps: of few dimensions they cost as much as the steps themselves.
    kept, fresh = refreshment(step_size / decoherence_length, d)
    start = set_out(point, direction, root)
    end, (squares, known) = scan_random(one, draw, start, key, num_steps)
    return Flight(end.point, end.direction, jnp.sum(squares) / jnp.maximum(jnp.sum(known), 1))
