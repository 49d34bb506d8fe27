# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""One-step maps of Langevin dynamics: the formulas that the kernels share.

Conventions: the target is :math:`\exp(-U)`, `gradient` is :math:`\nabla U`, and the step size `h`
is that of :math:`x \leftarrow x - h \nabla U + \sqrt{2h}\, \xi` with standard normal :math:`\xi`.
(The :math:`\epsilon / 2` of the papers on noise-conditional score networks is this `h`.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array

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
