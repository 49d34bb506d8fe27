# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Directions that turn in a gradient: the differential equation, volume on the sphere, extremes."""

import jax
import numpy as np
import pytest
from jax import random

from numpyro_scores.integrators import partly_refreshed, random_direction, turned

pytestmark = pytest.mark.usefixtures("quick_compilation")

D = 4
GRAD = np.array([1.3, -0.4, 0.8, 2.0])


def directions(num, d=D):
    return np.asarray(random_direction(random.key(0), (num, d), float))


def test_a_turn_solves_the_differential_equation(x64):
    def rate(u):
        return -(GRAD - u * (u @ GRAD)) / (D - 1)

    for u in directions(3):
        end, work = u, 0.0
        for _ in range(400):  # Runge and Kutta, of fourth order
            h = 1.5 / 400
            k1 = rate(end)
            k2, k3 = rate(end + h / 2 * k1), 0
            k3 = rate(end + h / 2 * k2)
            k4 = rate(end + h * k3)
            middle = end + h / 2 * k2
            new = end + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            # The kinetic energy gains what the force does: dK = -(g . u) dt.
            work -= h / 6 * GRAD @ (end + 4 * middle / np.linalg.norm(middle) + new)
            end = new
        found, rise = turned(u, GRAD, 1.5)
        np.testing.assert_allclose(found, end, rtol=1e-8)
        np.testing.assert_allclose(rise, work, rtol=1e-6)


def test_the_kinetic_energy_is_the_volume_on_the_sphere(x64):
    for u in directions(3):
        jacobian = np.asarray(jax.jit(jax.jacobian(lambda u: turned(u, GRAD, 1.5)[0]))(u))
        # From the tangents at u to those at the end.
        before, after = (np.linalg.svd(x[None])[2][1:] for x in (u, turned(u, GRAD, 1.5)[0]))
        volume = abs(np.linalg.det(after @ jacobian @ before.T))
        np.testing.assert_allclose(np.log(volume), -turned(u, GRAD, 1.5)[1], rtol=1e-10)


def test_a_turn_goes_back_when_the_direction_is_turned_round(x64):
    for u in directions(3):
        there, rise = turned(u, GRAD, 0.7)
        back, fall = turned(-there, GRAD, 0.7)
        np.testing.assert_allclose(back, -u, rtol=1e-12)
        np.testing.assert_allclose(fall, -rise, rtol=1e-12)


@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 50.0, 1e6])
def test_single_precision_is_right_in_steep_and_flat_places(size):
    u = directions(20, 100).astype(np.float32)
    grad = size * np.ones(100, np.float32) / 10
    found, rise = jax.jit(jax.vmap(lambda u: turned(u, grad, 2.0)))(u)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    a, delta = -u.astype(float).sum(1) / 10, 2.0 * size / 99
    exact = 99 * (np.logaddexp(np.log1p(a) + delta, np.log1p(-a) - delta) - np.log(2))
    np.testing.assert_allclose(rise, exact, rtol=1e-5, atol=1e-6 * (1 + size))
    for along in (0.1, -0.1):  # up the slope, which rounding may turn round, and down
        found, rise = turned(np.full(100, along, np.float32), grad, 2.0)
        np.testing.assert_allclose(np.abs(found), 0.1, rtol=1e-4)
        assert np.isfinite(rise)


def test_a_direction_is_partly_forgotten(x64):
    u = directions(4_000, d=3)
    new = np.asarray(partly_refreshed(u, random.normal(random.key(1), u.shape), 0.7))
    np.testing.assert_allclose(np.linalg.norm(new, axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose(new.T @ new / len(new), np.eye(3) / 3, atol=0.03)
    # On a sphere of many dimensions nothing but the decay is left to chance.
    u = directions(1, d=20_000)[0]
    new = partly_refreshed(u, random.normal(random.key(1), u.shape), 0.7)
    np.testing.assert_allclose(u @ new, np.exp(-0.7), atol=0.03)
