# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""SK-ROCK: its stability polynomials, how far it is stable, and its recursion as published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from integrators.helpers import affine_map
from numpy.polynomial.chebyshev import Chebyshev

from numpyro_scores.integrators import SKROCK, IntegratorState, stationary_variance

pytestmark = pytest.mark.usefixtures("quick_compilation")

STAGES = [2, 5, 10, 15]


def polynomials(integrator):
    s = integrator.num_stages
    t = Chebyshev.basis(s)
    omega_0 = 1 + integrator.eta / s**2
    return t, omega_0, t(omega_0) / t.deriv()(omega_0)


def growth(integrator, z):
    """The factor of the mean in one step, for many products `z` of step size and precision."""
    start = IntegratorState(jnp.ones(len(z)), jnp.ones(len(z)), None)
    return integrator.step(start, np.zeros((1, len(z))), lambda x: z * x, 1.0).x


@pytest.mark.parametrize("num_stages, eta", [(2, 0.05), (5, 0.01), (10, 0.5), (15, 0.05)])
def test_a_step_on_a_gaussian_is_the_stability_polynomials(x64, num_stages, eta):
    integrator = SKROCK(num_stages, eta)
    t, omega_0, omega_1 = polynomials(integrator)
    slope = t.deriv()
    for h in np.array([0.003, 0.2, 0.9]) * 2 * omega_0 / omega_1:
        argument = omega_0 - omega_1 * h
        a, b = affine_map(integrator, np.eye(1), h)
        np.testing.assert_allclose(a, t(argument) / t(omega_0), rtol=0, atol=1e-12)
        noise = slope(argument) / slope(omega_0) * (1 - omega_1 * h / 2) * np.sqrt(2 * h)
        np.testing.assert_allclose(b, noise, rtol=0, atol=1e-11)


@pytest.mark.parametrize("num_stages, advised", [(5, 37.65), (10, 172.98), (15, 404.98)])
def test_how_far_it_is_stable(x64, num_stages, advised):
    """
    The map itself grows beyond 2 omega_0 / omega_1 and nowhere before; the step that the
    authors advise lies below, the less so the more stages.
    """
    integrator = SKROCK(num_stages)
    _, omega_0, omega_1 = polynomials(integrator)
    np.testing.assert_allclose(integrator.stable_step, advised, atol=0.005)
    z = np.linspace(0, 2.1 * num_stages**2, 200_001)[1:]
    grows = np.abs(growth(integrator, z)) > 1
    limit = z[np.argmax(grows)]
    np.testing.assert_allclose(limit, 2 * omega_0 / omega_1, rtol=1e-4)
    assert np.all(grows[z > limit])
    assert 1.05 * integrator.stable_step < limit < 1.3 * integrator.stable_step
    # In the middle the damping keeps it away from one.
    inner = (z > 2) & (z < 0.99 * limit)
    assert np.abs(growth(integrator, z[inner])).max() < 1 - 0.9 * integrator.eta


def test_a_gradient_goes_further_than_one_of_euler_maruyama():
    gains = [SKROCK(s).stable_step / (2 * s) for s in (5, 10, 15)]
    np.testing.assert_allclose(gains, [3.765, 8.649, 13.5], rtol=1e-3)


def test_its_variance_on_a_gaussian(x64):
    """Never above the exact one, and of first order in the step."""
    integrator = SKROCK(5)
    steps = jnp.concatenate([jnp.array([0.01, 0.005, 37.65]), jnp.linspace(0.02, 48, 100)])
    variances = jax.vmap(lambda h: stationary_variance(integrator, h, 1.0))(steps)
    assert np.max(variances) < 1
    np.testing.assert_allclose((1 - variances[0]) / (1 - variances[1]), 2, rtol=0.01)
    np.testing.assert_allclose(variances[2], 0.206, atol=1e-3)


@pytest.mark.parametrize("num_stages", STAGES)
def test_the_recursion_on_a_quartic_is_the_published_one(x64, num_stages):
    def gradient(x):
        return x**3 - x

    integrator, h = SKROCK(num_stages, 0.05), 0.4
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 4))
    s = num_stages
    t = [Chebyshev.basis(j)(1 + 0.05 / s**2) for j in range(s + 1)]
    _, omega_0, omega_1 = polynomials(integrator)
    q = np.sqrt(2 * h) * noise
    k = [x, x - omega_1 / omega_0 * (h * gradient(x + s * omega_1 / 2 * q) - s * q)]
    for j in range(2, s + 1):
        mu, nu = 2 * omega_1 * t[j - 1] / t[j], 2 * omega_0 * t[j - 1] / t[j]
        k.append(-mu * h * gradient(k[-1]) + nu * k[-1] - t[j - 2] / t[j] * k[-2])
    start = integrator.init(x, noise, gradient)
    end = integrator.step(start, noise[None], gradient, h)
    np.testing.assert_allclose(end.x, k[-1], rtol=1e-12)
    np.testing.assert_allclose(end.grad, gradient(k[-2]), rtol=1e-12)


def test_in_single_precision_rounding_is_relative_to_the_step():
    """A step of some 0.001 from 1,000, where the numbers are 6e-5 apart; 15 stages."""
    x = np.full(3, 1000.0, np.float32)
    noise = np.array([[0.3, -1.0, 2.0]], np.float32)
    start = IntegratorState(x, np.zeros_like(x), None)
    end = SKROCK(15).step(start, noise, jnp.zeros_like, 1e-6)
    np.testing.assert_allclose(end.x - x, np.sqrt(2e-6) * noise[0], atol=6.2e-5)


@pytest.mark.parametrize("num_stages", [0, -1, 2.5, True])
def test_stages_that_cannot_be_counted(num_stages):
    with pytest.raises(ValueError, match="num_stages must be a positive integer"):
        SKROCK(num_stages)


def test_bad_settings():
    with pytest.raises(ValueError, match=r"at least 2; with one stage use EulerMaruyama\(\)"):
        SKROCK(1)
    for eta in (0.0, 1.0, -0.05, np.nan):
        with pytest.raises(ValueError, match=r"eta must be in \(0, 1\)"):
            SKROCK(5, eta)
