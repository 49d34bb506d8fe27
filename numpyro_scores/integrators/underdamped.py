# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Underdamped integrators: compositions of the parts of the dynamics that can be solved exactly.

B is the kick :math:`p - t \nabla U(x)`, A the drift :math:`x + t p`, O the friction of the
momentum, and U the friction and the drift together. Each name tells the order of a step; a letter
that stands twice takes half of the time step each time.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import jax.numpy as jnp
from jax import Array

from numpyro_scores.integrators._base import IntegratorState, UnderdampedIntegrator


@final
@dataclass(frozen=True)
class OBABO(UnderdampedIntegrator):
    r"""
    Friction, half a kick, drift, half a kick (Bussi & Parrinello 2007): a leapfrog step between
    refreshments of the momentum. On a Gaussian of precision :math:`\lambda` its stationary variance
    is :math:`\lambda^{-1} / (1 - \delta^2 \lambda / 4)` at any friction; stable for
    :math:`\delta^2 \lambda < 4`.

    The half O that ends a step and the half that begins the next are one O, made here at once: the
    positions have the law of OBABO, for one noise a step.
    """

    def step(self, state, noise, gradient, step_size, friction):
        momentum = friction_flow(state.memory, noise[0], step_size, friction)
        momentum = momentum - step_size / 2 * state.grad
        x = state.x + step_size * momentum
        grad = gradient(x)
        return IntegratorState(x, grad, momentum - step_size / 2 * grad)


@final
@dataclass(frozen=True)
class BAOAB(UnderdampedIntegrator):
    r"""
    Half a kick, half a drift, friction, half a drift, half a kick (Leimkuhler & Matthews 2013,
    equation 7): exact stationary variance on a Gaussian; stable for :math:`\delta^2 \lambda < 4`.
    As the friction grows it becomes
    :class:`~numpyro_scores.integrators.LeimkuhlerMatthews` with :math:`h = \delta^2 / 2`.

    The momentum is carried along, so that a direction of curvature :math:`\lambda` far below the
    largest, :math:`\Lambda`, is forgotten in some :math:`\sqrt{\Lambda / \lambda}` steps; without
    momentum it takes :math:`\Lambda / \lambda`.
    """

    def step(self, state, noise, gradient, step_size, friction):
        momentum = state.memory - step_size / 2 * state.grad
        x = state.x + step_size / 2 * momentum
        momentum = friction_flow(momentum, noise[0], step_size, friction)
        x = x + step_size / 2 * momentum
        grad = gradient(x)
        return IntegratorState(x, grad, momentum - step_size / 2 * grad)


@final
@dataclass(frozen=True)
class UBU(UnderdampedIntegrator):
    r"""
    Half of the free motion, a kick, half of the free motion (Sanz-Serna & Zygalakis 2021): of
    second order strongly, along the path, and not only in its law. Biased on a Gaussian: for
    :math:`\lambda = \gamma = 1` the stationary variance is 0.959 with :math:`\delta = 0.5`, 0.839
    with :math:`\delta = 1`.

    The one gradient of a step is that of its middle, which is what the state's `grad` holds.
    """

    num_noises: ClassVar[int] = 4

    def step(self, state, noise, gradient, step_size, friction):
        x, momentum = free_flow(state.x, state.memory, noise[:2], step_size / 2, friction)
        grad = gradient(x)
        momentum = momentum - step_size * grad
        x, momentum = free_flow(x, momentum, noise[2:], step_size / 2, friction)
        return IntegratorState(x, grad, momentum)


def friction_flow(
    momentum: Array, noise: Array, time: Array | float, friction: Array | float
) -> Array:
    r"""
    :math:`p(t)` of :math:`dp = -\gamma p\, dt + \sqrt{2\gamma}\, dW`, exactly:
    :math:`e^{-\gamma t} p + \sqrt{1 - e^{-2\gamma t}}\, \xi`.
    """
    decay = friction * time
    return jnp.exp(-decay) * momentum + jnp.sqrt(-jnp.expm1(-2 * decay)) * noise


def free_flow(
    x: Array, momentum: Array, noise: Array, time: Array | float, friction: Array | float
) -> tuple[Array, Array]:
    r"""
    Position and momentum after the time `t` of the dynamics without a force, exactly. Given the
    momentum at both ends the position is Gaussian: with :math:`y = \gamma t / 2` and
    :math:`s = \tanh(y) / y`,

    .. math:: x(t) = x + t \left( s \, \tfrac{p + p(t)}{2} + \sqrt{(1 - s) / y}\, \xi \right).

    :param noise: standard normal, shape `(2, *x.shape)`.
    :return: position and momentum.
    """
    end = friction_flow(momentum, noise[0], time, friction)
    y = friction * time / 2
    # Where y is small 1 - s would cancel: there Lambert's continued fraction of tanh gives both,
    # s = 1 / (1 + q) with q = y^2 / (3 + y^2 / (5 + ...)).
    small, large = jnp.minimum(y, 1.0), jnp.maximum(y, 1.0)
    tail = 17.0
    for odd in (15, 13, 11, 9, 7, 5, 3):
        tail = odd + small**2 / tail
    q = small**2 / tail
    s = jnp.where(y < 1, 1 / (1 + q), jnp.tanh(large) / large)
    variance = jnp.where(y < 1, small / tail / (1 + q), (1 - s) / large)
    return x + time * (s * (momentum + end) / 2 + jnp.sqrt(variance) * noise[1]), end
