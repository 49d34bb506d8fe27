# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""OBABO, BAOAB and UBU: exact on a Gaussian, without a force, and in the limits of the friction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from integrators.helpers import PRECISION, spectral_radius, stationary_covariance
from scipy import linalg

from numpyro_scores.integrators import (
    BAOAB,
    OBABO,
    UBU,
    EulerMaruyama,
    IntegratorState,
    LeimkuhlerMatthews,
    stationary_variance,
)
from numpyro_scores.integrators.underdamped import free_flow, friction_flow

pytestmark = pytest.mark.usefixtures("quick_compilation")

INTEGRATORS = [OBABO(), BAOAB(), UBU()]


@pytest.mark.parametrize("friction", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("step_size", [0.1, 1.2])
def test_stationary_covariance_of_a_gaussian(x64, step_size, friction):
    exact = linalg.inv(PRECISION)
    np.testing.assert_allclose(
        stationary_covariance(BAOAB(), PRECISION, step_size, friction), exact, atol=1e-11
    )
    np.testing.assert_allclose(
        stationary_covariance(OBABO(), PRECISION, step_size, friction),
        exact @ linalg.inv(np.eye(3) - step_size**2 * PRECISION / 4),
        atol=1e-11,
    )


@pytest.mark.parametrize("integrator", [OBABO(), BAOAB()], ids=repr)
def test_stable_up_to_the_squared_step_of_four_over_the_precision(x64, integrator):
    limit = 2 / np.sqrt(linalg.eigvalsh(PRECISION).max())
    for friction in (0.3, 3.0):
        assert spectral_radius(integrator, PRECISION, 0.999 * limit, friction) < 1
        assert spectral_radius(integrator, PRECISION, 1.001 * limit, friction) > 1


@pytest.mark.parametrize("integrator", [OBABO(), UBU()], ids=repr)
def test_the_bias_on_a_gaussian_is_of_second_order(x64, integrator):
    coarse, fine = (stationary_variance(integrator, h, 1.0, 1.0) - 1 for h in (0.02, 0.01))
    np.testing.assert_allclose(coarse / fine, 4, rtol=0.01)


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=repr)
def test_without_friction_a_step_is_verlet(x64, integrator):
    """On a quartic: kick, drift, kick; or, for UBU, drift, kick, drift."""
    x, p, delta = np.array([0.7, -1.1]), np.array([0.4, 0.9]), 0.3
    noise = np.ones((integrator.num_noises, 2))
    start = IntegratorState(x, x**3, p)
    end = integrator.step(start, noise, lambda x: x**3, delta, 0.0)
    if integrator == UBU():
        middle = x + delta / 2 * p
        p_end = p - delta * middle**3
        x_end = middle + delta / 2 * p_end
    else:
        x_end = x + delta * (p - delta / 2 * x**3)
        p_end = p - delta / 2 * (x**3 + x_end**3)
    np.testing.assert_allclose(end.x, x_end, rtol=1e-14)
    np.testing.assert_allclose(end.memory, p_end, rtol=1e-14)


def test_baoab_becomes_leimkuhler_matthews_as_the_friction_grows(x64):
    """On a quartic; the momentum of one is the noise of the other, kicked by half a step."""

    def gradient(x):
        return x**3

    rng = np.random.default_rng(0)
    delta, (x, old, *noises) = 0.4, rng.normal(size=(7, 3))
    a = IntegratorState(x, gradient(x), old - delta / 2 * gradient(x))
    b = IntegratorState(x, gradient(x), old)
    for noise in noises:
        a = BAOAB().step(a, noise[None], gradient, delta, np.inf)
        b = LeimkuhlerMatthews().step(b, noise[None], gradient, delta**2 / 2)
        np.testing.assert_allclose(a.x, b.x, rtol=1e-13)


def test_obabo_forgets_the_momentum_as_the_friction_grows(x64):
    """It becomes Euler-Maruyama with the same relation of the steps."""
    rng = np.random.default_rng(0)
    x, momentum, noise = rng.normal(size=(3, 2))
    start = IntegratorState(x, x**3, momentum)
    end = OBABO().step(start, noise[None], lambda x: x**3, 0.4, np.inf)
    new = EulerMaruyama().step(start, noise[None], lambda x: x**3, 0.4**2 / 2)
    np.testing.assert_allclose(end.x, new.x, rtol=1e-14)


def test_ubu_becomes_euler_maruyama_at_the_middle_as_the_friction_grows(x64):
    """
    With the time step `h friction`: the middles of the steps are Euler-Maruyama's positions; from
    there to the end is one more step of the drift and half of its noise.
    """
    h, friction = 0.3, 1e9
    middle = stationary_variance(EulerMaruyama(), h, 1.0)
    variance = stationary_variance(UBU(), h * friction, 1.0, friction)
    np.testing.assert_allclose(variance, (1 - h) ** 2 * middle + h, rtol=1e-8)


def test_momentum_forgets_a_flat_direction_sooner(x64):
    """Steps until a direction of 1/100 of the largest curvature is forgotten by a factor e."""

    def steps(*args):
        return -1 / np.log(spectral_radius(args[0], np.eye(1) / 100, *args[1:]))

    np.testing.assert_allclose(steps(LeimkuhlerMatthews(), 0.5), 200, rtol=0.01)
    for integrator in INTEGRATORS:
        assert steps(integrator, 1.0, 0.2) < 20


# ---- the dynamics without a force ----


def exact_flow(time, friction):
    """Its drift of (x, p), and the covariance of the noise (Van Loan 1978)."""
    drift = np.array([[0.0, 1.0], [0.0, -friction]])
    noise = np.diag([0.0, 2 * friction])
    block = linalg.expm(np.block([[-drift, noise], [np.zeros((2, 2)), drift.T]]) * time)
    return block[2:, 2:].T, block[2:, 2:].T @ block[:2, 2:]


def flow(time, friction):
    """The same from `free_flow`, with the square root of the covariance."""

    def end(start, noise):
        return jnp.stack(free_flow(start[0], start[1], noise, time, friction))

    return map(np.asarray, jax.jacobian(end, argnums=(0, 1))(jnp.zeros(2), jnp.zeros(2)))


# The two forms of the coefficients meet where friction times time is 2.
@pytest.mark.parametrize("time, friction", [(0.5, 1.0), (1.0, 1.999), (1.0, 2.001), (3.0, 2.0)])
def test_free_flow_is_exact(x64, time, friction):
    drift, root = flow(time, friction)
    exact_drift, covariance = exact_flow(time, friction)
    np.testing.assert_allclose(drift, exact_drift, atol=1e-13)
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-12)


def test_two_free_flows_are_one_of_the_sum_of_their_times(x64):
    (a, a_root), (b, b_root), (c, c_root) = flow(0.3, 1.5), flow(1.1, 1.5), flow(1.4, 1.5)
    np.testing.assert_allclose(b @ a, c, rtol=1e-13)
    covariance = b @ a_root @ a_root.T @ b.T + b_root @ b_root.T
    np.testing.assert_allclose(covariance, c_root @ c_root.T, rtol=1e-13)


@pytest.mark.parametrize("friction", [1e-6, 1e-3, 0.1, 1.0, 100.0])
def test_free_flow_in_single_precision(friction):
    """
    Nothing cancels: entries and determinant of the covariance to some roundings. With a small
    decay c the determinant, c^2 / 3, is what remains of terms of the size of c.
    """
    time, exact = 0.01, friction * 0.01
    _, root = flow(time, friction)
    covariance = root.astype(np.float64) @ root.T.astype(np.float64)
    scaled = covariance / np.outer([time, 1], [time, 1])
    if exact < 0.1:  # the first terms of the series
        c = exact
        entries = [2 * c / 3 - c**2 / 2, c - c**2, 2 * c - 2 * c**2]
        got = scaled[[0, 0, 1], [0, 1, 1]]
        np.testing.assert_allclose(got, entries, rtol=2 * c**2 + 1e-6)
        np.testing.assert_allclose(np.linalg.det(scaled), c**2 / 3, rtol=2 * c + 1e-6)
    else:
        np.testing.assert_allclose(covariance, exact_flow(time, friction)[1], rtol=1e-6)


def test_friction_keeps_the_momentum_standard_normal(x64):
    for decay in (1e-12, 0.2, 50.0):
        keep, spread = jax.jacobian(friction_flow, argnums=(0, 1))(0.3, 0.7, 1.0, decay)
        np.testing.assert_allclose(keep**2 + spread**2, 1, rtol=1e-15)
        np.testing.assert_allclose(keep, np.exp(-decay), rtol=1e-15)


def test_a_time_step_so_short_that_its_cube_underflows_is_finite():
    """A kernel gives it to a block that must not move: its momentum is refreshed all the same."""
    delta = np.sqrt(2 * np.finfo(np.float32).tiny)
    for integrator in INTEGRATORS:
        noise = np.zeros((integrator.num_noises, 1), np.float32)
        start = integrator.init(jnp.ones(1), jnp.ones(1), lambda x: x)
        end = integrator.step(start, noise, lambda x: x, delta, 1 / delta)
        np.testing.assert_array_equal(end.x, start.x)
        np.testing.assert_allclose(end.memory, np.exp(-1), rtol=1e-6)
