# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Finite-difference score matching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores.densities import traces
from numpyro_scores.objectives import FiniteDifferenceScoreMatching, SlicedScoreMatching

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
X = np.random.default_rng(0).normal(size=(8, 3))


def energy(weights, x):
    return jnp.sum(weights * x**4) + jnp.cos(weights @ x)


def score(weights, x):
    """Its Jacobian is full and isn't symmetric."""
    return jnp.sin(weights * x[::-1]) - x + jnp.roll(x, 1) ** 3 / 4


def objective_and_gradient(objective, f):
    weights = jnp.array([0.3, -0.5, 0.8])

    def loss(weights):
        return objective(lambda x: f(weights, x), X, key=KEY)

    value, gradient = jax.jit(jax.value_and_grad(loss))(weights)
    return np.append(gradient, value)


@pytest.mark.parametrize("f, reduced", [(energy, False), (score, True)])
def test_it_is_sliced_score_matching_up_to_the_square_of_the_step(x64, f, reduced):
    def error(eps):
        finite = FiniteDifferenceScoreMatching(eps, 4, traces.gaussian)
        return objective_and_gradient(finite, f) - exact

    exact = objective_and_gradient(SlicedScoreMatching(4, traces.gaussian, reduced), f)
    large, small = error(0.02), error(0.01)
    assert np.all(np.abs(small) < 0.01 * np.abs(exact).max())
    np.testing.assert_allclose(large / small, 4, rtol=0.02)


@pytest.mark.parametrize("f, reduced", [(energy, False), (score, True)])
def test_the_default_step_is_good_in_single_precision(f, reduced):
    finite = objective_and_gradient(FiniteDifferenceScoreMatching(), f)
    exact = objective_and_gradient(SlicedScoreMatching(variance_reduced=reduced), f)
    np.testing.assert_allclose(finite, exact, atol=2e-3 * np.abs(exact).max())


def test_an_energy_is_not_differentiated_in_its_point():
    @jax.custom_jvp
    def opaque(x):
        return jnp.sum(x**2)

    @opaque.defjvp
    def refuse(primals, tangents):
        raise AssertionError("differentiated")

    assert np.isfinite(FiniteDifferenceScoreMatching()(opaque, X, key=KEY))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"eps": 0.0}, "eps must be a finite positive number"),
        ({"num_projections": 0}, "num_projections must be a positive integer"),
    ],
)
def test_a_bad_argument_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        FiniteDifferenceScoreMatching(**options)
