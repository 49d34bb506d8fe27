# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A step of isokinetic dynamics in a model's potential energy, for MAMS and MCLMC."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from numpyro_scores.infer.langevin.targets import Point, Root, Target, unwhiten, whiten
from numpyro_scores.integrators.isokinetic import Splitting, turned


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
    for share, turn in zip(splitting.moves, splitting.turns[1:], strict=True):
        jump = unwhiten(root, time * share * direction)
        is_last = turn is splitting.turns[-1]
        point, error = target.leap(point, jump, is_energy_asked and is_last)
        doubt = doubt + error
        direction, more = turned(direction, whiten(root, point.grad), time * turn)
        kinetic = kinetic + more
    return Move(point, direction, kinetic, doubt)
