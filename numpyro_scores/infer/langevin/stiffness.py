# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The largest curvature that a chain meets, and the step size that is safe there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores.curvature import (
    NUM_FIRST_ITERATIONS,
    NUM_ITERATIONS,
    curvature_at,
    largest_curvature,
    next_directions,
)
from numpyro_scores.infer.langevin.targets import Root, coordinates
from numpyro_scores.integrators import Gradient, stationary_variance

# Friction times time step. With the default step this is critical for a direction whose curvature
# is 1/40 of the largest, and such as are stiffer still oscillate a few times at most.
FRICTION = 0.2


class Stiffness(NamedTuple):
    """
    - **curvature** - the largest that was found, shape `()`.
    - **direction** - of the last one, shape `(d,)`.
    """

    curvature: Array
    direction: Array


def stiffness_at(gradient: Gradient, x: Array, key: Array) -> Stiffness:
    """Of a point about which nothing is known."""
    start = random.normal(key, x.shape, x.dtype)
    return _largest_of(jnp.zeros((), x.dtype), start, gradient, x, NUM_FIRST_ITERATIONS)


def stiffness_with(known: Stiffness, gradient: Gradient, x: Array, key: Array) -> Stiffness:
    """Of all points so far and this one."""
    fresh = random.normal(key, x.shape, x.dtype)
    start = next_directions(known.direction[None], fresh[None])[0]
    return _largest_of(known.curvature, start, gradient, x, NUM_ITERATIONS)


def _largest_of(known: Array, start: Array, gradient: Gradient, x: Array, num: int) -> Stiffness:
    curvatures, directions = largest_curvature(gradient, x, start[None], num)
    curvature = jnp.where(jnp.isfinite(curvatures[0]), curvatures[0], 0.0)
    return Stiffness(jnp.maximum(known, curvature), directions[0])


def first_curvature(key: Array, potential: Callable, x: Array, root: Root) -> Array:
    """The largest at a start, in the coordinates of the metric; 1 where there is none above 0."""
    v, position = coordinates(root, x)
    curvature = curvature_at(jax.grad(lambda v: potential(position(v))), v, key)
    return jnp.where(curvature > 0, curvature, 1.0)


def safe_step(
    integrator: Any,
    stiffness: Stiffness,
    grad: Array,
    dynamics: Callable[[Array], dict[str, Array | float]],
) -> tuple[Array, Array]:
    """
    The integrator's safe step, and the relative error that it makes of the stationary variance in
    the direction of this curvature, were the target Gaussian.

    :param grad: the gradient at the point.
    :param dynamics: from the step size, the other arguments of a step.
    """
    # Where the potential is straight its slope bounds the step: to a fifth of a unit.
    bends = stiffness.curvature > 0
    slope = jnp.sqrt(jnp.mean(grad**2))
    curvature = jnp.where(bends, stiffness.curvature, jnp.where(slope > 0, slope, 0.2))
    step_size = integrator.safe_step(curvature)
    variance = stationary_variance(integrator, step_size, curvature, **dynamics(step_size))
    error = jnp.where(bends, variance * curvature - 1, 0.0)
    return step_size, error.astype(grad.dtype)
