# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""One-step maps of Langevin dynamics: the formulas that the kernels share.

Conventions: the target is :math:`\exp(-U)`, `gradient` is :math:`\nabla U`, and the step size `h`
is that of :math:`x \leftarrow x - h \nabla U + \sqrt{2h}\, \xi` with standard normal :math:`\xi`.
(The :math:`\epsilon / 2` of the papers on noise-conditional score networks is this `h`.)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_positive

Gradient: TypeAlias = Callable[[Array], Array]


class IntegratorState(NamedTuple):
    """
    - **x** - position, shape `(d,)`.
    - **grad** - gradient of the potential energy at `x`, shape `(d,)`.
    - **memory** - what the integrator carries besides, or None.
    """

    x: Array
    grad: Array
    memory: Any


class Integrator(Protocol):
    """A one-step map. `step_size` is a number or has one entry for each of `x`."""

    def init(self, x: Array, noise: Array, gradient: Gradient) -> IntegratorState:
        """The state at `x`; `noise` is standard normal, of the shape of `x`."""
        ...

    def step(
        self, state: IntegratorState, noise: Array, gradient: Gradient, step_size: Array
    ) -> IntegratorState:
        """One step with standard normal `noise`, of the shape of `x`."""
        ...


@dataclass(frozen=True)
class EulerMaruyama:
    r"""
    :math:`x' = x - h \nabla U(x) + \sqrt{2h}\, \xi`. On a Gaussian of precision :math:`\lambda` its
    stationary variance is :math:`\lambda^{-1} / (1 - h\lambda/2)`; stable for :math:`h\lambda < 2`.
    """

    def init(self, x: Array, noise: Array, gradient: Gradient) -> IntegratorState:
        """The state at `x`; `noise` is standard normal, of the shape of `x`."""
        return IntegratorState(x, gradient(x), None)

    def step(
        self, state: IntegratorState, noise: Array, gradient: Gradient, step_size: Array
    ) -> IntegratorState:
        """One step with standard normal `noise`, of the shape of `x`."""
        x = euler_maruyama(state.x, state.grad, step_size, noise)
        return IntegratorState(x, gradient(x), None)


@dataclass(frozen=True)
class LeimkuhlerMatthews:
    r"""
    :math:`x' = x - h \nabla U(x) + \sqrt{h/2}\, (\xi + \xi')`, where :math:`\xi'` serves the next
    step again: exact stationary variance on a Gaussian, second order elsewhere, at the cost of
    Euler-Maruyama (Leimkuhler & Matthews 2013, equation 9).
    """

    def init(self, x: Array, noise: Array, gradient: Gradient) -> IntegratorState:
        """The state at `x`; `noise` is standard normal, of the shape of `x`."""
        return IntegratorState(x, gradient(x), noise)

    def step(
        self, state: IntegratorState, noise: Array, gradient: Gradient, step_size: Array
    ) -> IntegratorState:
        """One step with standard normal `noise`, of the shape of `x`."""
        mean_noise = (state.memory + noise) / 2
        x = euler_maruyama(state.x, state.grad, step_size, mean_noise)
        return IntegratorState(x, gradient(x), noise)


@dataclass(frozen=True)
class BAOAB:
    r"""
    Underdamped Langevin dynamics: with time step :math:`\delta = \sqrt{2h}` and momentum `p`,
    half a kick :math:`p - \tfrac\delta2 \nabla U`, half a drift :math:`x + \tfrac\delta2 p`, the
    friction :math:`e^{-\gamma} p + \sqrt{1 - e^{-2\gamma}}\, \xi`, half a drift and half a kick
    (Leimkuhler & Matthews 2013, equation 7). Exact stationary variance on a Gaussian; stable for
    :math:`h\lambda < 2`.

    The momentum is carried along, so that a direction of curvature :math:`\lambda` far below the
    largest, :math:`\Lambda`, is forgotten in some :math:`\sqrt{\Lambda / \lambda}` steps; without
    momentum it takes :math:`\Lambda / \lambda`. One gradient a step.

    :param friction: :math:`\gamma`, the friction times the time step: the momentum is remembered
        for some :math:`1 / \gamma` steps.
    """

    friction: float = 0.2

    def __post_init__(self):
        check_positive("friction", self.friction)

    def init(self, x: Array, noise: Array, gradient: Gradient) -> IntegratorState:
        """The state at `x`; `noise`, standard normal of the shape of `x`, is the momentum."""
        return IntegratorState(x, gradient(x), noise)

    def step(
        self, state: IntegratorState, noise: Array, gradient: Gradient, step_size: Array
    ) -> IntegratorState:
        """One step with standard normal `noise`, of the shape of `x`."""
        delta = jnp.sqrt(2 * step_size)
        momentum = state.memory - delta / 2 * state.grad
        x = state.x + delta / 2 * momentum
        keep = math.exp(-self.friction)
        momentum = keep * momentum + math.sqrt(1 - keep**2) * noise
        x = x + delta / 2 * momentum
        grad = gradient(x)
        return IntegratorState(x, grad, momentum - delta / 2 * grad)


def euler_maruyama(x: Array, grad: Array, step_size: Array, noise: Array) -> Array:
    r""":math:`x - h \nabla U + \sqrt{2h}\, \xi`."""
    return x - step_size * grad + jnp.sqrt(2 * step_size) * noise


def log_proposal_ratio(grad: Array, grad_new: Array, step_size: Array, noise: Array) -> Array:
    r"""
    :math:`\log q(x | y) - \log q(y | x)` of an Euler-Maruyama step from `x` to `y` with `noise`:
    the noise that leads back is :math:`-\xi + \sqrt{h/2}\, (\nabla U(x) + \nabla U(y))`.
    """
    noise_back = jnp.sqrt(step_size / 2) * (grad + grad_new) - noise
    return (jnp.vdot(noise, noise) - jnp.vdot(noise_back, noise_back)) / 2
