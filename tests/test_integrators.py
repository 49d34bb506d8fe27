# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""One-step maps: affine on a Gaussian, so their stationary law is a Lyapunov equation away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from numpyro_scores.integrators import (
    BAOAB,
    EulerMaruyama,
    IntegratorState,
    LeimkuhlerMatthews,
    euler_maruyama,
    log_proposal_ratio,
)

PRECISION = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
INTEGRATORS = [EulerMaruyama(), LeimkuhlerMatthews(), BAOAB(), BAOAB(friction=2.0)]


def affine_map(integrator, precision, step_size):
    """(A, B) of `state <- A state + B noise` on a Gaussian, from the integrator's own steps."""
    d = len(precision)

    def gradient(x):
        return precision @ x

    with_memory = integrator.init(np.zeros(d), np.zeros(d), gradient).memory is not None

    def step(state, noise):
        x, memory = state[:d], state[d:] if with_memory else None
        new = integrator.step(IntegratorState(x, gradient(x), memory), noise, gradient, step_size)
        return jnp.concatenate([new.x, new.memory]) if with_memory else new.x

    state = np.zeros(2 * d if with_memory else d)
    return jax.jacobian(step, argnums=(0, 1))(state, np.zeros(d))


def stationary_covariance(integrator, precision, step_size):
    a, b = map(np.asarray, affine_map(integrator, precision, step_size))
    d = len(precision)
    return linalg.solve_discrete_lyapunov(a, b @ b.T)[:d, :d]


@pytest.mark.parametrize(
    "integrator, step_size, variance",
    [
        (EulerMaruyama(), 0.5, 4 / 3),
        (EulerMaruyama(), 1.0, 2.0),
        (LeimkuhlerMatthews(), 0.5, 1.0),
        (LeimkuhlerMatthews(), 1.0, 1.0),
        (BAOAB(), 0.5, 1.0),
        (BAOAB(), 1.0, 1.0),
    ],
)
def test_stationary_variance_of_a_standard_normal(x64, integrator, step_size, variance):
    covariance = stationary_covariance(integrator, np.eye(1), step_size)
    np.testing.assert_allclose(covariance, variance, rtol=1e-12)


@pytest.mark.parametrize("step_size", [0.01, 0.3, 0.8])
def test_stationary_covariance_of_a_gaussian(x64, step_size):
    exact = linalg.inv(PRECISION)
    for integrator in (LeimkuhlerMatthews(), BAOAB(), BAOAB(friction=2.0)):
        np.testing.assert_allclose(
            stationary_covariance(integrator, PRECISION, step_size), exact, atol=1e-11
        )
    np.testing.assert_allclose(
        stationary_covariance(EulerMaruyama(), PRECISION, step_size),
        exact @ linalg.inv(np.eye(3) - step_size * PRECISION / 2),
        atol=1e-12,
    )


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=repr)
def test_stable_up_to_two_over_the_largest_precision(x64, integrator):
    limit = 2 / linalg.eigvalsh(PRECISION).max()

    def spectral_radius(step_size):
        return max(abs(linalg.eigvals(affine_map(integrator, PRECISION, step_size)[0])))

    assert spectral_radius(0.999 * limit) < 1 < spectral_radius(1.001 * limit)


def test_autocorrelation_time_of_euler_maruyama(x64):
    # That of an autoregression with coefficient a.
    a, _ = affine_map(EulerMaruyama(), np.eye(1), 0.3)
    np.testing.assert_allclose((1 + a) / (1 - a), (2 - 0.3) / 0.3, rtol=1e-12)


def test_momentum_forgets_a_flat_direction_sooner(x64):
    """Steps until a direction of 1/100 of the largest curvature is forgotten by a factor e."""

    def steps(integrator):
        a, _ = affine_map(integrator, np.eye(1) / 100, step_size=0.5)
        return -1 / np.log(max(abs(linalg.eigvals(a))))

    np.testing.assert_allclose(steps(LeimkuhlerMatthews()), 200, rtol=0.01)
    assert steps(BAOAB()) < 20


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
        y_new = integrator.step(state, 0.0, gradient, step_size).x
    else:
        x = y
        y_new = integrator.step(IntegratorState(y, gradient(y), None), xi, gradient, step_size).x
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


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=repr)
def test_a_step_keeps_the_gradient_of_where_it_ends(x64, integrator):
    def gradient(x):
        return PRECISION @ x + x**3

    x, noise = np.array([0.3, -1.0, 2.0]), np.array([1.0, 0.2, -0.4])
    start = integrator.init(x, noise, gradient)
    end = integrator.step(start, -noise, gradient, 0.01)
    np.testing.assert_array_equal(start.grad, gradient(x))
    np.testing.assert_array_equal(end.grad, gradient(end.x))
    assert not np.array_equal(end.x, x)
