# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The log density of a denoiser at a fixed point, by the heat equation along the noise levels."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import Denoiser
from numpyro_scores._validation import check_count
from numpyro_scores.denoisers.score import score_of_denoised
from numpyro_scores.densities.line_integral import gauss_legendre
from numpyro_scores.densities.traces import ExactTrace, HutchinsonTrace, TraceEstimator

EXACT_TRACE_DIM = 256  # above, the Jacobian of one point alone costs more than 256 evaluations


@dataclass(frozen=True)
class NoisePathIntegral:
    r"""
    The log density of a noise-conditional prior, by the heat equation along the noise levels at a
    fixed point (the density of a diffused density obeys
    :math:`\partial_\sigma \log p_\sigma = \sigma (\operatorname{tr} \nabla s_\sigma +
    |s_\sigma|^2)`):

    .. math:: \log p_\sigma(x) = \log p_{\sigma_{\max}}(x) - \int_\sigma^{\sigma_{\max}} \sigma'
              \left( \operatorname{tr} \nabla s_{\sigma'}(x) + |s_{\sigma'}(x)|^2 \right) d\sigma',

    with Gauss-Legendre nodes in :math:`\log \sigma'`. All nodes are one batch, and the value is
    right between modes too; but a network meets clean points at large noise levels here, where it
    was not trained.

    :param num_nodes: number of noise levels.
    :param trace: how the trace of the Jacobian is found; exact up to 256 dimensions by default,
        and with 32 fixed Rademacher probes above.
    """

    num_nodes: int = 32
    trace: TraceEstimator | None = None

    def __post_init__(self):
        check_count("num_nodes", self.num_nodes)
        check_trace(self.trace)

    def __call__(self, denoiser: Denoiser, x: Array, sigma: Array, sigma_max: float) -> Array:
        """
        :param denoiser: the denoiser of one point.
        :param x: a point.
        :param sigma: the noise level of the density.
        :param sigma_max: the largest noise level of the process.
        :return: :math:`\\log p_\\sigma(x)`, normalised, shape `()`.
        """
        trace = self.trace or default_trace(x.size)
        nodes, weights = gauss_legendre(self.num_nodes, x.dtype)
        log_ratio = jnp.log(sigma_max / sigma)

        def integrand(t):
            level = sigma * jnp.exp(t * log_ratio)
            denoised, jacobian_trace = trace(lambda x: denoiser(x, level), x)
            return jacobian_trace - x.size + jnp.sum(((denoised - x) / level) ** 2)

        integral = log_ratio * jnp.vdot(weights, jax.vmap(integrand)(nodes))
        return log_density_at_sigma_max(denoiser, trace, x, sigma_max) - integral


def mean_at_sigma_max(denoiser: Denoiser, like: Array, sigma_max: Any) -> Array:
    r"""
    The mean of the data as the denoiser knows it: at a large noise level
    :math:`D(x, \sigma) = m + C (x - m) / \sigma^2 + \dots`, so that two evaluations from zero
    leave an error of :math:`(C / \sigma^2)^2 m`.
    """
    return denoiser(denoiser(jnp.zeros_like(like), sigma_max), sigma_max)


def log_density_at_sigma_max(
    denoiser: Denoiser, trace: TraceEstimator, x: Array, sigma_max: Any
) -> Array:
    """The log density of one point at the largest noise level, where it is nearly Gaussian."""
    # A Gaussian N(m, sigma^2 I + C), whose C the denoiser tells: its quadratic form is (x - m).s
    # and its log determinant d log sigma^2 + tr(grad D) up to (C / sigma^2)^2.
    sigma_max = jnp.asarray(sigma_max, x.dtype)
    mean = mean_at_sigma_max(denoiser, x, sigma_max)
    denoised, jacobian_trace = trace(lambda x: denoiser(x, sigma_max), x)
    score = score_of_denoised(denoised, x, sigma_max)
    log_determinant = x.size * jnp.log(2 * jnp.pi * sigma_max**2) + jacobian_trace
    return 0.5 * (jnp.vdot(x - mean, score) - log_determinant)


def check_trace(trace: Any) -> None:
    """Raise unless `trace` is an estimator, or None for the default."""
    if trace is not None and not isinstance(trace, TraceEstimator):
        raise TypeError(
            f"trace must be ExactTrace() or HutchinsonTrace(num_probes=32), got {trace!r}."
        )


def default_trace(dim: int) -> TraceEstimator:
    """The exact trace in up to 256 dimensions, 32 fixed probes above."""
    return ExactTrace() if dim <= EXACT_TRACE_DIM else HutchinsonTrace(num_probes=32)
