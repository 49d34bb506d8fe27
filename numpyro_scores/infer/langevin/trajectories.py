# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Metropolis test of a whole trajectory."""

from jax import Array, random

from numpyro_scores.infer.adaptation import accept_or_stay
from numpyro_scores.infer.langevin.targets import Point, Target, Transition


def accept_end(
    key: Array,
    start: Point,
    end: Point,
    target: Target,
    kinetic: Array,
    integral_error: Array,
    num_steps: Array | int,
) -> Transition:
    """
    Go to the end of a trajectory or stay at its start, by what the sum of potential and kinetic
    energy gains on the way.

    :param end: of steps by `Target.leap`.
    :param kinetic: what the kinetic energy gains.
    :param integral_error: the sum of the errors of the steps.
    """
    end = end._replace(energy=target.energy(end.x))
    error = end.energy - start.energy + (end.integral - start.integral) + kinetic
    uniform = random.uniform(key, dtype=error.dtype)
    is_known = target.is_known(integral_error)
    point, accept_prob, diverging = accept_or_stay(uniform, -error, end, start, is_known)
    unresolved = (~is_known & ~diverging).astype(error.dtype)
    return Transition(point, accept_prob, diverging, unresolved, num_steps)
