# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""`stationary_variance`: closed forms, another solver, and an integrator of somebody else."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from integrators.helpers import stationary_covariance

from numpyro_scores.integrators import (
    BAOAB,
    OBABO,
    SKROCK,
    UBU,
    EulerMaruyama,
    IntegratorState,
    LeimkuhlerMatthews,
    OverdampedIntegrator,
    stationary_variance,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    "integrator, friction, half, one",
    [
        (EulerMaruyama(), (), 4 / 3, 2.0),
        (LeimkuhlerMatthews(), (), 1.0, 1.0),
        (OBABO(), (1.0,), 16 / 15, 4 / 3),
        (BAOAB(), (1.0,), 1.0, 1.0),
    ],
    ids=repr,
)
def test_closed_forms_with_steps_of_a_half_and_of_one(x64, integrator, friction, half, one):
    for step_size, variance in [(0.5, half), (1.0, one)]:
        got = stationary_variance(integrator, step_size, 1.0, *friction)
        np.testing.assert_allclose(got, variance, rtol=1e-12)


def test_ubu_with_steps_of_a_half_and_of_one(x64):
    """Known to five digits; and from the recursion of its second moments, in their own terms."""
    for step_size, digits in [(0.5, 0.95859), (1.0, 0.83854)]:
        variance = stationary_variance(UBU(), step_size, 1.0, 1.0)
        np.testing.assert_allclose(variance, digits, atol=5e-6)
        # Half a step: its drift, and its covariance from the variances of the Brownian integrals.
        e = np.exp(-step_size / 2)
        drift = np.array([[1, 1 - e], [0, e]])
        noise = np.array([[step_size - 3 + 4 * e - e**2, (1 - e) ** 2], [0, 1 - e**2]])
        noise[1, 0] = noise[0, 1]
        kick = np.array([[1, 0], [-step_size, 1]])
        s = np.eye(2)
        for _ in range(1_000):
            s = drift @ s @ drift.T + noise
            s = drift @ kick @ s @ kick.T @ drift.T + noise
        np.testing.assert_allclose(variance, s[0, 0], rtol=1e-10)


@pytest.mark.parametrize(
    "integrator, friction",
    [
        (EulerMaruyama(), ()),
        (LeimkuhlerMatthews(), ()),
        (SKROCK(4), ()),
        (OBABO(), (0.3,)),
        (BAOAB(), (5.0,)),
        (UBU(), (0.7,)),
    ],
    ids=repr,
)
def test_the_variance_is_that_of_the_lyapunov_equation(x64, integrator, friction):
    variance = jax.jit(stationary_variance, static_argnums=0)
    for step_size, precision in [(0.03, 0.2), (0.4, 3.0)]:
        exact = stationary_covariance(integrator, precision * np.eye(1), step_size, *friction)
        got = variance(integrator, step_size, precision, *friction)
        np.testing.assert_allclose(got, exact[0, 0], rtol=1e-12)


def test_infinite_where_the_steps_are_unstable(x64):
    steps = np.array([0.1, 1.99, 2.0, 2.01, 50.0, 1e200])
    variances = jax.vmap(lambda h: stationary_variance(EulerMaruyama(), h, 1.0))(steps)
    np.testing.assert_allclose(variances[:2], 1 / (1 - steps[:2] / 2), rtol=1e-10)
    assert np.all(np.isposinf(variances[2:]))
    for integrator in (OBABO(), BAOAB()):
        variance = jax.vmap(lambda h, i=integrator: stationary_variance(i, h, 1.0, 0.3))(steps)
        assert np.all(np.isfinite(variance[:2])) and np.all(np.isposinf(variance[3:]))


def test_single_precision():
    steps = np.array([1e-3, 0.2, 1.0], np.float32)
    variances = jax.vmap(lambda h: stationary_variance(EulerMaruyama(), h, 1.0))(steps)
    np.testing.assert_allclose(variances, 1 / (1 - steps / 2), rtol=2e-4)


@pytest.mark.parametrize(
    "integrator", [EulerMaruyama(), LeimkuhlerMatthews(), OBABO(), BAOAB(), UBU()], ids=repr
)
def test_a_safe_step_leaves_every_direction_within_11_percent(x64, integrator):
    check_safe_step(integrator)


@pytest.mark.parametrize("num_stages", [2, 3, 5, 10, 20])
def test_a_safe_step_of_any_number_of_stages(x64, num_stages):
    check_safe_step(SKROCK(num_stages))


def check_safe_step(integrator):
    largest = 7.0
    step_size = integrator.safe_step(largest)
    friction = () if isinstance(integrator, OverdampedIntegrator) else (0.2 / step_size,)
    precisions = np.linspace(0.01, 1.0, 50) * largest

    def variance(precision):
        return stationary_variance(integrator, step_size, precision, *friction)

    variances = np.asarray(jax.jit(jax.vmap(variance))(precisions))
    assert np.all(abs(variances * precisions - 1) < 0.1112)


def test_its_gradient_finds_the_step_of_a_given_bias(x64):
    # d/dh 1 / (1 - h / 2)
    slope = jax.grad(lambda h: stationary_variance(EulerMaruyama(), h, 1.0))(0.5)
    np.testing.assert_allclose(slope, 0.5 / 0.75**2, rtol=1e-10)


@dataclass(frozen=True)
class SecondOrderMemory(OverdampedIntegrator):
    """Leimkuhler-Matthews with its two last noises as a tuple, the older one of no effect."""

    def init(self, x, noise, gradient):
        return IntegratorState(x, gradient(x), (noise, noise))

    def step(self, state, noise, gradient, step_size):
        last, _ = state.memory
        x = state.x - step_size * state.grad + jnp.sqrt(step_size / 2) * (last + noise[0])
        return IntegratorState(x, gradient(x), (noise[0], last))


def test_an_integrator_with_any_memory(x64):
    np.testing.assert_allclose(stationary_variance(SecondOrderMemory(), 0.8, 2.0), 0.5, rtol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match=r"UBU\(\) needs a friction, per unit of time"):
        stationary_variance(UBU(), 0.1, 1.0)
    with pytest.raises(ValueError, match=r"EulerMaruyama\(\) has no friction, got friction=1.0"):
        stationary_variance(EulerMaruyama(), 0.1, 1.0, 1.0)
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="step_size must be a finite positive number"):
            stationary_variance(EulerMaruyama(), bad, 1.0)
        with pytest.raises(ValueError, match="precision must be a finite positive number"):
            stationary_variance(EulerMaruyama(), 0.1, bad)
        with pytest.raises(ValueError, match="friction must be a finite positive number"):
            stationary_variance(BAOAB(), 0.1, 1.0, bad)
