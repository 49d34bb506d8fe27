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
    partly_refreshed,
    turned,
)


class Move(NamedTuple):
    """
    - **point**, **direction** - where it ends; the direction in the coordinates of the metric.
    - **kinetic** - by how much the kinetic energy rose.
    - **doubt** - the error that is measured of the integral of scores.
    """

    point: Point
    direction: Array
    kinetic: Array
    doubt: Array


def isokinetic_step(
    start: Point,
    direction: Array,
    target: Target,
    step_size: Array,
    root: Root,
    splitting: Splitting,
    is_energy_asked: bool,
) -> Move:
    r"""
    One step.

    :param step_size: of a coordinate: a step is :math:`\sqrt d` times as long.
    :param root: of the inverse metric, by which steps are scaled.
    :param is_energy_asked: whether the end knows its energy; else it has that of the start.
    """
    time = step_size * math.sqrt(start.x.size)
    direction, kinetic = turned(direction, whiten(root, start.grad), time * splitting.turns[0])
    point, doubt = start, jnp.zeros_like(start.energy)
    last = len(splitting.moves) - 1
    for k, (share, turn) in enumerate(zip(splitting.moves, splitting.turns[1:], strict=True)):
        jump = unwhiten(root, time * share * direction)
        point, error = target.leap(point, jump, is_energy_asked and k == last)
        doubt = doubt + error
        direction, more = turned(direction, whiten(root, point.grad), time * turn)
        kinetic = kinetic + more
    return Move(point, direction, kinetic, doubt)


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

    def one(carry, noise):
        start, direction = carry
        new, direction, kinetic, doubt = isokinetic_step(
            start, direction, target, step_size, root, splitting, is_energy_asked=True
        )
        error = new.energy - start.energy + (new.integral - start.integral) + kinetic
        # Where the dynamics have left the finite numbers, the noise alone makes the direction.
        is_finite = jnp.isfinite(error)
        direction = jnp.where(is_finite, direction, 0.0)
        direction = partly_refreshed(direction, noise, step_size / decoherence_length)
        # An integral that is not known tells no energy.
        is_known = target.is_known(doubt)
        error = jnp.where(is_known | ~is_finite, error, 0.0)
        return (new, direction), (error**2 / d, is_known)

    carry = point, direction
    (end, direction), (squares, known) = scan_random(one, draw, carry, key, num_steps)
    return Flight(end, direction, jnp.sum(squares) / jnp.maximum(jnp.sum(known), 1))
