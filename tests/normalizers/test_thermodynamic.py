# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Thermodynamic integration: the integral itself by enumeration, and its estimate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from jax import random
from normalizers.helpers import exact, gaussian_rbm, ising, points_of, potts, rbm, triangles

import numpyro_scores as ns
from numpyro_scores.normalizers._path import Path, path_to
from numpyro_scores.normalizers.thermodynamic import _integral

pytestmark = pytest.mark.usefixtures("quick_compilation")

assert_close = np.testing.assert_allclose
CRITICAL = 0.4406867935


@pytest.mark.parametrize("make", [rbm, ising, potts, triangles])
def test_the_mean_slope_integrates_to_the_normaliser(x64, make):
    d = make()
    path = path_to(d, None, "ThermodynamicIntegration")
    points = points_of(path.end)

    @jax.jit
    @jax.vmap
    def mean_slope(beta):
        p = jax.nn.softmax(path.at(beta).log_prob(points))
        return p @ path.slope(beta, tuple(path.end.split(points)))

    nodes, weights = np.polynomial.legendre.leggauss(40)
    integral = mean_slope((jnp.asarray(nodes) + 1) / 2) @ weights / 2
    assert_close(integral, exact(d) - exact(path.start), rtol=1e-10)


def test_the_slope_averages_over_the_units_that_are_summed_out(x64):
    d = rbm(1, 2)
    path = path_to(d, None, "ThermodynamicIntegration")
    blocks = jnp.array([[0], [1]]), jnp.array([[0, 1], [1, 1]])
    expected = jax.nn.sigmoid(0.3 * d.weights[0] + d.hidden_bias) @ d.weights[0]
    assert_close(jax.jit(path.slope)(0.3, blocks), [0, expected], rtol=1e-12)


def test_the_rule_is_simpsons_and_its_error_is_counted(x64, monkeypatch):
    slopes = jnp.array([0.9, 1.0, 1.3])  # of each chain, times a cubic in beta
    monkeypatch.setattr(Path, "slope", lambda _, beta, blocks: 4 * beta**3 * slopes)
    path = path_to(ns.Ising((2, 2), 0.3), None, "ThermodynamicIntegration")
    found = jax.jit(lambda path, key: _integral.__wrapped__(path, key, 3, 4, 1))(
        path, random.key(0)
    )
    assert_close(found.estimate, 4 * np.log(2) + slopes.mean(), rtol=1e-12)
    trapezoid = np.trapezoid(4 * np.linspace(0, 1, 5) ** 3, dx=1 / 4)
    of_rule = (trapezoid - 1) * slopes.mean()
    expected = np.hypot(np.std(slopes, ddof=1) / np.sqrt(3), of_rule)
    assert_close(found.standard_error, expected, rtol=1e-12)
    assert_close((found.upper - found.estimate, found.estimate - found.lower), 2 * expected)


TORUS = [(ns.Ising((4, 4), 0.2), 11.7714703585), (ns.Ising((4, 4), CRITICAL), 15.5219154588)]


@pytest.mark.parametrize("d, log_z", TORUS)
def test_the_torus_has_kaufmans_normaliser(d, log_z):
    method = ns.ThermodynamicIntegration()
    found = ns.log_normalizer(d, key=random.key(0), method=method)
    assert abs(found.estimate - log_z) < 4.5 * found.standard_error < 0.1


@pytest.mark.parametrize("make", [rbm, lambda: rbm(3, 4).joint(), potts, triangles, gaussian_rbm])
def test_the_estimate_agrees_with_enumeration(make):
    d = make()
    method = ns.ThermodynamicIntegration(num_levels=32, num_steps=16)
    found = ns.log_normalizer(d, key=random.key(0), method=method)
    assert abs(found.estimate - exact(d)) < 4.5 * found.standard_error < 0.3


def test_any_base_gives_the_same_normaliser():
    d = ns.Ising((2, 2), 0.4, [[0.3, -0.2], [0.1, 0.5]])
    base = ns.Ising((2, 2), 9.0, -np.ones((2, 2)))
    method = ns.ThermodynamicIntegration(num_levels=32, num_steps=16, base=base)
    found = ns.log_normalizer(d, key=random.key(0), method=method)
    assert abs(found.estimate - exact(d)) < 4.5 * found.standard_error < 0.2


def test_equal_shapes_are_compiled_once():
    method = ns.ThermodynamicIntegration(num_chains=3, num_levels=2, num_steps=1)
    ns.log_normalizer(ns.Ising((2, 2), 0.1), key=random.key(0), method=method)
    with compilations() as names:
        ns.log_normalizer(ns.Ising((2, 2), 0.2), key=random.key(0), method=method)
    assert not names


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ns.ThermodynamicIntegration(1), "num_chains must be at least 2.*got 1"),
        (lambda: ns.ThermodynamicIntegration(num_levels=5), "even, for Simpson's rule, got 5"),
        (lambda: ns.ThermodynamicIntegration(num_steps=0), "num_steps must be a positive integer"),
        (
            lambda: ns.log_normalizer(rbm(), method=ns.ThermodynamicIntegration()),
            "ThermodynamicIntegration draws at random and needs one key",
        ),
    ],
)
def test_a_bad_argument_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()
