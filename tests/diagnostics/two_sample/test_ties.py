# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Samples with repeats, of few values, or constant: p-values and balls are those of counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy.spatial.distance import cdist
from scipy.stats import hypergeom

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(1)
NUM = 1_000
D = ns.diagnostics
TESTS = {
    "mmd_test": lambda x, y: D.mmd_test(x, y, key=KEY, num_permutations=NUM),
    "energy_distance": lambda x, y: D.energy_distance(x, y, key=KEY, num_permutations=NUM),
    "mean_test": lambda x, y: D.mean_test(x, y, key=KEY, num_permutations=NUM),
    "sliced_wasserstein": lambda x, y: D.sliced_wasserstein(
        x, y, key=KEY, num_permutations=NUM, num_projections=5
    ),
}


def two_values(count, n, d):
    """`n` points of which `count` are the other of two; no number of them is exact in binary."""
    return np.repeat([0.3, 1.0], [n - count, count])[:, None] * np.linspace(1, 1.7, d)


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
@pytest.mark.parametrize("n, first, second, d", [(20, 7, 11, 6), (200, 70, 80, 1)])
def test_the_p_value_of_two_values_is_hypergeometric(test, n, first, second, d):
    found = test(two_values(first, n, d), two_values(second, n, d)).p_value
    total = first + second
    counts = np.arange(min(total, n) + 1)
    as_far = np.abs(2 * counts - total) >= abs(first - second)
    exact = hypergeom(2 * n, total, n).pmf(counts)[as_far].sum()
    exact = min(exact, 1.0)
    assert abs(found - exact) <= 4 * np.sqrt(exact * (1 - exact) / NUM) + 1e-6


def test_equal_sets_have_a_p_value_of_one():
    x = np.random.default_rng(0).choice([0.1, 0.4, 0.7], (12, 3))
    for test in (*TESTS.values(), lambda x, y: D.variance_test(x, y, key=KEY)):
        assert test(x, x[::-1]).p_value == 1
    assert D.linear_mmd_test(x, x).p_value == 0.5  # no term of its mean differs from zero


def test_the_same_training_is_a_tie_of_the_classifier():
    """With all points alike there is one statistic only."""
    x = np.full((6, 2), 0.3)
    found = D.classifier_two_sample_test(x, x, key=KEY, num_permutations=19)
    assert found.p_value == 1 and found.statistic == 0


def test_entries_that_are_constant_in_each_set():
    x = np.zeros((4, 3)) + 0.3
    y = x + [0.0, 0.1, 0.0]
    y[0, 2] += 1
    found = D.mean_test(x, y, key=KEY, num_permutations=20_000)
    assert found.t[0] == 0 and found.t[1] == -np.inf and np.isfinite(found.t[2])
    # Of the 70 splits two tell the sets apart.
    assert abs(found.p_value - 2 / 70) < 4 * np.sqrt(2 / 70 / 20_000)
    assert found.p_values[0] == 1 and found.p_values[1] == found.p_value
    assert D.mean_test(x, x, key=KEY).p_value == 1
    assert D.mean_test(np.ones((5, 1)) / 3, np.ones((9, 1)) / 3, key=KEY).statistic == 0


def balls(centres, points, k):
    """Whether each point is in each ball; of float64 the same distances differ by 1e-15."""
    radii = np.sort(cdist(centres, centres), axis=1)[:, k]
    return cdist(points, centres) <= radii + 1e-9


@pytest.mark.parametrize("d", [2, 64])
@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_balls_of_binary_pictures(d, offset):
    rng = np.random.default_rng(d)
    real = offset + (rng.random((40, d)) < 0.1) * 0.7
    generated = offset + (rng.random((30, d)) < 0.2) * 0.7
    within, back = balls(real, generated, 3), balls(generated, real, 3)
    found = D.precision_recall(real, generated)
    np.testing.assert_allclose(found.precision, within.any(axis=1).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.recall, back.any(axis=1).mean(), rtol=1e-6)
    found = D.density_coverage(real, generated, num_neighbours=3)
    np.testing.assert_allclose(found.density, within.sum() / (3 * 30), rtol=1e-6)
    np.testing.assert_allclose(found.coverage, within.any(axis=0).mean(), rtol=1e-6)


@pytest.mark.parametrize("d", [3, 20])
def test_every_sample_is_in_its_own_ball_of_repeats(d):
    x = np.repeat(np.random.default_rng(d).normal(size=(8, d)) + 50, 3, axis=0)
    found = D.density_coverage(x, x, num_neighbours=2)
    assert found.coverage == 1 and found.density == 1.5  # three samples in each ball of two
    assert D.precision_recall(x, x[:8], num_neighbours=2).precision == 1


def test_the_tests_take_the_switches_of_jax():
    """Ranks that are not promoted, and no NaN on the way."""
    x, y = np.random.default_rng(0).normal(size=(2, 8, 5)).astype(np.float32)
    x[:, 0] = y[:, 0] = 1.0
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        for test in (*TESTS.values(), lambda x, y: D.variance_test(x, y, key=KEY)):
            assert 0 < test(x, y).p_value <= 1
        assert np.isnan(D.energy_distance(x, y).p_value)
        assert np.isnan(D.sliced_wasserstein(x, y, key=KEY).p_value)
        D.linear_mmd_test(x, y)
        assert 0 < D.classifier_two_sample_test(x, y, key=KEY, num_permutations=3).p_value <= 1
        for network in (D.SmallNetwork(width=2, num_steps=2),):
            D.classifier_two_sample_test(x, y, key=KEY, num_permutations=2, classifier=network)
        D.precision_recall(x, y)
        D.density_coverage(x, y, num_neighbours=3)
        D.frechet_distance(x, y, lambda x: jnp.tanh(x))
        D.kernel_distance(x, y)
        D.inception_score(x, lambda x: x)
        D.kernel_density_log_likelihood(x, y)
        D.psnr(x, y, data_range=1.0)
