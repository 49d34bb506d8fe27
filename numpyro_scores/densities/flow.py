# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
The probability flow :math:`dx / d\log\sigma = x - D(x, \sigma)`: points and log densities along it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import Denoiser
from numpyro_scores._validation import check_count
from numpyro_scores.densities.noise_path import check_trace, default_trace, log_density_at_sigma_max
from numpyro_scores.densities.traces import TraceEstimator


@dataclass(frozen=True)
class ProbabilityFlow:
    r"""
    The log density of a noise-conditional prior, by the change of variable along the probability
    flow :math:`dx / d\log\sigma = x - D(x, \sigma)` (Song et al. 2021, section 4.3):

    .. math:: \log p_\sigma(x) = \log p_{\sigma_{\max}}(x_{\sigma_{\max}}) + \int_{\log
              \sigma}^{\log \sigma_{\max}} \left( d - \operatorname{tr} \nabla D(x_{\sigma'},
              \sigma') \right) d\log\sigma',

    with classical Runge-Kutta steps of fourth order in :math:`\log \sigma`. The path stays where a
    network was trained; its steps follow one another, and between far modes, where neighbouring
    paths part, it needs many more of them.

    :param num_steps: number of steps, each of four evaluations.
    :param trace: how the trace of the Jacobian is found; exact up to 256 dimensions by default,
        and with 32 fixed Rademacher probes above.
    """

    num_steps: int = 64
    trace: TraceEstimator | None = None

    def __post_init__(self):
        check_count("num_steps", self.num_steps)
        check_trace(self.trace)

    def __call__(self, denoiser: Denoiser, x: Array, sigma: Array, sigma_max: float) -> Array:
        """See :meth:`~numpyro_scores.NoisePathIntegral.__call__`: same arguments, same value."""
        carry = partial(_runge_kutta, num_steps=self.num_steps)
        return log_density_by_flow(carry, denoiser, self.trace, x, sigma, sigma_max)


def log_density_by_flow(
    carry: Callable[..., Any],
    denoiser: Denoiser,
    trace: TraceEstimator | None,
    x: Array,
    sigma: Array,
    sigma_max: float,
) -> Array:
    r"""
    The log density of one point, by the change of variable along the probability flow.

    :param carry: `carry(velocity, state, sigma_from, sigma_to)`, the state at the end of steps.
    """
    trace = trace or default_trace(x.size)
    start = (x, jnp.zeros((), x.dtype))
    x_max, log_volume = carry(_flow_and_volume(denoiser, trace), start, sigma, sigma_max)
    return log_density_at_sigma_max(denoiser, trace, x_max, sigma_max) + log_volume


def _flow_and_volume(denoiser: Denoiser, trace: TraceEstimator) -> Callable[..., Any]:
    r"""
    The slope in :math:`\log \sigma` of a point along the probability flow and of the logarithm of
    the volume about it, as a function of :math:`\log \sigma` and both.
    """

    def velocity(log_sigma, state):
        x, _ = state
        denoised, jacobian_trace = trace(lambda x: denoiser(x, jnp.exp(log_sigma)), x)
        return x - denoised, x.size - jacobian_trace

    return velocity


def probability_flow(
    denoiser: Denoiser, x: Array, sigma_from: Any, sigma_to: Any, num_steps: int
) -> Array:
    """
    Carry a point along the probability flow from one noise level to another, up or down.

    :param denoiser: the denoiser of one point.
    :param x: a point of the density at `sigma_from`.
    :param num_steps: number of fourth-order steps in the logarithm of the noise level.
    :return: the point at `sigma_to`.
    """

    return _runge_kutta(flow(denoiser), x, sigma_from, sigma_to, num_steps)


def flow(denoiser: Denoiser) -> Callable[[Array, Array], Array]:
    r""":math:`x - D(x, \sigma)`, a function of :math:`\log \sigma` and `x`."""
    return lambda log_sigma, x: x - denoiser(x, jnp.exp(log_sigma))


def _runge_kutta(velocity, state, sigma_from, sigma_to, num_steps):
    start, end = jnp.log(sigma_from), jnp.log(sigma_to)
    h = (end - start) / num_steps

    def shifted(state, h, slope):
        return jax.tree.map(lambda s, v: s + h * v, state, slope)

    def step(state, i):
        t = start + i * h
        k1 = velocity(t, state)
        k2 = velocity(t + h / 2, shifted(state, h / 2, k1))
        k3 = velocity(t + h / 2, shifted(state, h / 2, k2))
        k4 = velocity(t + h, shifted(state, h, k3))
        slope = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
        return shifted(state, h, slope), None

    return jax.lax.scan(step, state, jnp.arange(num_steps))[0]
