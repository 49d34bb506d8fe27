# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Overdamped integrators with one gradient a step, and the ratio of densities of a proposal."""

from dataclasses import dataclass
from typing import final

import jax.numpy as jnp
from jax import Array

from numpyro_scores.integrators._base import IntegratorState, OverdampedIntegrator


@final
@dataclass(frozen=True)
class EulerMaruyama(OverdampedIntegrator):
    r"""
    :math:`x' = x - h \nabla U(x) + \sqrt{2h}\, \xi`. On a Gaussian of precision :math:`\lambda` its
    stationary variance is :math:`\lambda^{-1} / (1 - h\lambda/2)`; stable for :math:`h\lambda < 2`.
    """

    def step(self, state, noise, gradient, step_size):
        x = euler_maruyama(state.x, state.grad, step_size, noise[0])
        return IntegratorState(x, gradient(x), None)


@final
@dataclass(frozen=True)
class LeimkuhlerMatthews(OverdampedIntegrator):
    r"""
    :math:`x' = x - h \nabla U(x) + \sqrt{h/2}\, (\xi + \xi')`, where :math:`\xi'` serves the next
    step again: exact stationary variance on a Gaussian, second order elsewhere, at the cost of
    Euler-Maruyama (Leimkuhler & Matthews 2013, equation 9).
    """

    def init(self, x, noise, gradient):
        return IntegratorState(x, gradient(x), noise)

    def step(self, state, noise, gradient, step_size):
        mean_noise = (state.memory + noise[0]) / 2
        x = euler_maruyama(state.x, state.grad, step_size, mean_noise)
        return IntegratorState(x, gradient(x), noise[0])


def euler_maruyama(x: Array, grad: Array, step_size: Array | float, noise: Array) -> Array:
    r""":math:`x - h \nabla U + \sqrt{2h}\, \xi`."""
    return x - step_size * grad + jnp.sqrt(2 * step_size) * noise


def log_proposal_ratio(
    grad: Array, grad_new: Array, step_size: Array | float, noise: Array
) -> Array:
    r"""
    :math:`\log q(x | y) - \log q(y | x)` of an Euler-Maruyama step from `x` to `y` with `noise`:
    the noise that leads back is :math:`-\xi + \sqrt{h/2}\, (\nabla U(x) + \nabla U(y))`.
    """
    noise_back = jnp.sqrt(step_size / 2) * (grad + grad_new) - noise
    return (jnp.vdot(noise, noise) - jnp.vdot(noise_back, noise_back)) / 2
