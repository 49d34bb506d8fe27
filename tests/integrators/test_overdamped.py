# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Euler-Maruyama and Leimkuhler-Matthews: their stationary law, exactly, and their order."""

import jax.numpy as jnp
import numpy as np
import pytest
from integrators.helpers import PRECISION, affine_map, spectral_radius, stationary_covariance
from scipy import linalg, stats

from numpyro_scores.integrators import (
    EulerMaruyama,
    IntegratorState,
    LeimkuhlerMatthews,
    euler_maruyama,
    log_proposal_ratio,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

INTEGRATORS = [EulerMaruyama(), LeimkuhlerMatthews()]


@pytest.mark.parametrize("step_size", [0.01, 0.3, 0.8])
def test_stationary_covariance_of_a_gaussian(x64, step_size):
    exact = linalg.inv(PRECISION)
    np.testing.assert_allclose(
        stationary_covariance(LeimkuhlerMatthews(), PRECISION, step_size), exact, atol=1e-11
    )
    np.testing.assert_allclose(
        stationary_covariance(EulerMaruyama(), PRECISION, step_size),
        exact @ linalg.inv(np.eye(3) - step_size * PRECISION / 2),
        atol=1e-12,
    )


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=repr)
def test_stable_up_to_two_over_the_largest_precision(x64, integrator):
    limit = 2 / linalg.eigvalsh(PRECISION).max()
    assert spectral_radius(integrator, PRECISION, 0.999 * limit) < 1
    assert spectral_radius(integrator, PRECISION, 1.001 * limit) > 1


def test_autocorrelation_time_of_euler_maruyama(x64):
    # That of an autoregression with coefficient a.
    a, _ = affine_map(EulerMaruyama(), np.eye(1), 0.3)
    np.testing.assert_allclose((1 + a) / (1 - a), (2 - 0.3) / 0.3, rtol=1e-12)


def second_moment(integrator, step_size):
    """
    Stationary E[x^2] for U = x^2 / 2 + cos(2 x) / 2, without Monte Carlo: the transition operator
    as a matrix on Chebyshev nodes, with Gauss-Hermite quadrature over the noise.
    """

    def gradient(x):
        return x - jnp.sin(2 * x)

    half, num_nodes = 7.0, 80
    nodes = half * np.cos(np.pi * (np.arange(num_nodes) + 0.5) / num_nodes)
    noise, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    y, xi = np.meshgrid(nodes, noise, indexing="ij")
    if isinstance(integrator, LeimkuhlerMatthews):
        # y = x - sqrt(h / 2) memory is Markov alone: a step with no new noise gives the next.
        x = y + np.sqrt(step_size / 2) * xi
        state = IntegratorState(x, gradient(x), xi)
        y_new = integrator.step(state, [0.0], gradient, step_size).x
    else:
        x = y
        state = IntegratorState(y, gradient(y), None)
        y_new = integrator.step(state, [xi], gradient, step_size).x
    values = np.polynomial.chebyshev.chebvander(np.clip(y_new, -half, half) / half, num_nodes - 1)
    to_coefficients = linalg.inv(np.polynomial.chebyshev.chebvander(nodes / half, num_nodes - 1))
    operator = np.einsum("q,yqk->yk", weights, values) @ to_coefficients
    # Its powers tend to a matrix whose rows are the stationary law.
    expectation = np.linalg.matrix_power(operator, 2**10) @ ((x**2) @ weights)
    assert np.ptp(expectation) < 1e-8
    return expectation[0]


def test_order_of_the_bias_on_a_density_that_is_not_gaussian(x64):
    grid = np.linspace(-10, 10, 20_001)
    density = np.exp(-(grid**2 / 2 + np.cos(2 * grid) / 2))
    exact = np.sum(grid**2 * density) / np.sum(density)

    def bias_ratio(integrator):
        biases = [second_moment(integrator, h) - exact for h in (0.05, 0.025)]
        return biases[0] / biases[1]

    # Halving the step halves a first-order bias and quarters a second-order one.
    np.testing.assert_allclose(bias_ratio(EulerMaruyama()), 2, rtol=0.1)
    np.testing.assert_allclose(bias_ratio(LeimkuhlerMatthews()), 4, rtol=0.1)


def test_proposal_ratio_is_that_of_the_gaussian_densities(x64):
    rng = np.random.default_rng(0)
    for step_size in (0.01, 0.7):
        x, grad, grad_new, noise = rng.normal(size=(4, 3))
        y = euler_maruyama(x, grad, step_size, noise)

        def log_q(to, start, grad, h=step_size):
            return stats.norm(start - h * grad, np.sqrt(2 * h)).logpdf(to).sum()

        np.testing.assert_allclose(
            log_proposal_ratio(grad, grad_new, step_size, noise),
            log_q(x, y, grad_new) - log_q(y, x, grad),
            rtol=1e-11,
        )
