# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sliced score matching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores.densities import traces
from numpyro_scores.objectives import ImplicitScoreMatching, SlicedScoreMatching

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = np.random.default_rng(0).normal(size=(4, 3))


def score(x):
    """Its Jacobian is full and isn't symmetric."""
    return jnp.sin(x[::-1]) - x + jnp.roll(x, 1) ** 2 / 4


@pytest.mark.parametrize("projection", [traces.gaussian, traces.rademacher, traces.sphere])
@pytest.mark.parametrize("variance_reduced", [True, False])
def test_the_expectation_is_that_of_implicit_score_matching(projection, variance_reduced):
    objective = SlicedScoreMatching(25_000, projection, variance_reduced)
    exact = ImplicitScoreMatching()(score, X)
    # 10^5 projections: the standard error is below 0.02.
    np.testing.assert_allclose(objective(score, X, key=random.key(0)), exact, atol=0.08)


@pytest.mark.parametrize("variance_reduced", [True, False])
def test_the_variance_of_the_norm_is_gone_when_reduced(x64, variance_reduced):
    # A constant score c: (v^T c)^2 / 2 of a Gaussian projection has the variance |c|^4 / 2.
    constant = jnp.array([1.0, -2.0, 0.5])
    objective = SlicedScoreMatching(1, traces.gaussian, variance_reduced)
    keys = random.split(random.key(0), 4_000)
    losses = jax.jit(jax.vmap(lambda key: objective(lambda x: constant, X[:1], key=key)))(keys)
    expected = 0 if variance_reduced else (constant @ constant) ** 2 / 2
    np.testing.assert_allclose(np.var(losses), expected, rtol=0.25, atol=1e-20)


def test_every_point_has_projections_of_its_own():
    # At zero the loss of the field 2 x is the mean of 2 |v|^2: over n points of one projection each
    # its variance falls as 1 / n, and would not if they shared it.
    keys = random.split(random.key(0), 2_000)

    def variance(num_points, num_projections):
        x = jnp.zeros((num_points, 3))
        objective = SlicedScoreMatching(num_projections, traces.gaussian)
        return np.var(jax.jit(jax.vmap(lambda key: objective(lambda x: 2 * x, x, key=key)))(keys))

    one = 2 * 3 * 2.0**2  # the variance of 2 |v|^2
    np.testing.assert_allclose(variance(8, 1), one / 8, rtol=0.2)
    np.testing.assert_allclose(variance(2, 4), one / 8, rtol=0.2)


@pytest.mark.parametrize("num_projections", [0, -2, 1.0])
def test_a_bad_number_of_projections_is_told(num_projections):
    with pytest.raises(ValueError, match="num_projections must be a positive integer"):
        SlicedScoreMatching(num_projections)
