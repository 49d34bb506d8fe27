# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Two-sample tests and distances against double loops, SciPy and closed forms."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import random
from jax.tree_util import Partial

import numpyro_scores as ns
from numpyro_scores.diagnostics.two_sample import permutations
from numpyro_scores.diagnostics.two_sample.sliced_wasserstein import powers_on_a_line

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(6, 2)) + 20, 1.5 * RNG.normal(size=(4, 2)) + 20


def pairs(kernel, x, y):
    return np.array([[kernel(a, b) for b in y] for a in x])


def mmd(x, y, scale):
    def kernel(a, b):
        return math.exp(-np.sum((a - b) ** 2) / (2 * scale**2))

    xx, yy, xy = pairs(kernel, x, x), pairs(kernel, y, y), pairs(kernel, x, y)
    n, m = len(x), len(y)
    within = (np.sum(xx) - n) / (n * (n - 1)) + (np.sum(yy) - m) / (m * (m - 1))
    return within - 2 * np.mean(xy)


def energy(x, y):
    def kernel(a, b):
        return np.linalg.norm(a - b)

    return 2 * pairs(kernel, x, y).mean() - pairs(kernel, x, x).mean() - pairs(kernel, y, y).mean()


def all_splits(statistic, x, y):
    """The exact share of all splits whose statistic reaches the observed one."""
    z = np.concatenate([x, y])
    values = []
    for first in itertools.combinations(range(len(z)), len(x)):
        rest = [i for i in range(len(z)) if i not in first]
        values.append(statistic(z[list(first)], z[rest]))
    return np.mean(np.array(values) >= statistic(x, y) - 1e-12)


def test_mmd_is_that_of_a_double_loop(x64):
    found = ns.diagnostics.mmd_test(X, Y, key=KEY, lengthscale=1.2, block_size=3)
    np.testing.assert_allclose(found.statistic, mmd(X, Y, 1.2), rtol=1e-10)


def test_the_permutation_p_value_is_the_share_of_all_splits(x64):
    exact = all_splits(lambda x, y: mmd(x, y, 1.2), X, Y)
    found = ns.diagnostics.mmd_test(X, Y, key=KEY, lengthscale=1.2, num_permutations=20_000)
    assert 0.05 < exact < 0.95
    assert abs(found.p_value - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4
    exact = all_splits(energy, X, Y)
    found = ns.diagnostics.energy_distance(X, Y, key=KEY, num_permutations=20_000)
    assert abs(found.p_value - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4


def test_permutations_keep_the_sizes_of_the_sets_and_begin_with_the_truth():
    labels = np.asarray(permutations.labels(KEY, 3, 2, 500, jnp.float32))
    assert labels[0].tolist() == [1, 1, 1, 0, 0]
    assert np.all(labels.sum(axis=1) == 3)
    assert np.all(abs(labels[1:].mean(axis=0) - 0.6) < 4 * np.sqrt(0.24 / 500))


def test_linear_mmd_is_the_mean_of_its_terms_and_normal(x64):
    x, y = RNG.normal(size=(9, 2)), RNG.normal(size=(10, 2))

    def k(a, b):
        return math.exp(-np.sum((a - b) ** 2) / 2)

    terms = [
        k(x[i], x[i + 1]) + k(y[i], y[i + 1]) - k(x[i], y[i + 1]) - k(x[i + 1], y[i])
        for i in (0, 2, 4, 6)
    ]
    found = ns.diagnostics.linear_mmd_test(x, y, lengthscale=1.0)
    np.testing.assert_allclose(found.statistic, np.mean(terms), rtol=1e-12)
    z = np.mean(terms) / scipy.stats.sem(terms)
    np.testing.assert_allclose(found.p_value, scipy.stats.norm.sf(z), rtol=1e-10)


def test_the_energy_distance_is_that_of_a_double_loop_and_of_scipy(x64):
    found = ns.diagnostics.energy_distance(X, Y, block_size=3)
    np.testing.assert_allclose(found.statistic, energy(X, Y), rtol=1e-6)
    on_a_line = ns.diagnostics.energy_distance(X[:, :1], Y[:, :1])
    scipys = scipy.stats.energy_distance(X[:, 0], Y[:, 0])
    np.testing.assert_allclose(np.sqrt(on_a_line.statistic), scipys, rtol=1e-6)
    assert np.isnan(on_a_line.p_value)


@pytest.mark.parametrize("m", [4, 6, 3])
def test_the_wasserstein_distance_on_a_line_is_scipys(x64, m):
    x, y = RNG.normal(size=6), RNG.normal(size=m)
    found = powers_on_a_line(jnp.asarray(x), jnp.asarray(y), 1)
    np.testing.assert_allclose(found, scipy.stats.wasserstein_distance(x, y), rtol=1e-12)


def test_the_wasserstein_distance_of_second_order_is_that_of_repeated_samples(x64):
    x, y = RNG.normal(size=6), RNG.normal(size=4)
    exact = np.mean((np.sort(np.repeat(x, 2)) - np.sort(np.repeat(y, 3))) ** 2)
    found = powers_on_a_line(jnp.asarray(x), jnp.asarray(y), 2)
    np.testing.assert_allclose(found, exact, rtol=1e-12)


def test_the_sliced_distance_of_a_shift_is_its_length_over_the_root_of_the_dimension():
    x = RNG.normal(size=(50, 3))
    shift = np.array([1.0, 2.0, 2.0])
    found = ns.diagnostics.sliced_wasserstein(x, x + shift, key=KEY, num_projections=2_000)
    assert abs(found.statistic - 3 / np.sqrt(3)) < 4 * found.standard_error
    # (theta . shift)^2 is 9 Beta(1/2, 1), of mean 3 and variance 9 * 4 / 5.
    exact = np.sqrt(7.2 / 2_000) / (2 * np.sqrt(3))
    np.testing.assert_allclose(found.standard_error, exact, rtol=0.1)


def test_t_is_welchs_and_the_p_value_that_of_all_splits():
    found = ns.diagnostics.mean_test(X, Y, key=KEY, num_permutations=20_000)
    np.testing.assert_allclose(
        found.t, scipy.stats.ttest_ind(X, Y, equal_var=False).statistic, rtol=1e-4
    )

    def largest(x, y):
        return np.max(np.abs(scipy.stats.ttest_ind(x, y, equal_var=False).statistic))

    exact = all_splits(largest, X, Y)
    assert abs(found.p_value - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4
    assert np.min(found.p_values) == found.p_value


def test_the_variance_test_is_the_mean_test_of_squared_deviations():
    found = ns.diagnostics.variance_test(X, Y, key=KEY)
    squares = [(z - z.mean(axis=0)) ** 2 * len(z) / (len(z) - 1) for z in (X, Y)]
    exact = scipy.stats.ttest_ind(*squares, equal_var=False).statistic
    np.testing.assert_allclose(found.t, exact, rtol=1e-3)


def test_the_entry_that_differs_is_named():
    x, y = RNG.normal(size=(2, 200, 2, 2)) + 1e3
    y[:, 1, 0] += 1
    y[:, 0, 0] = x[:, 0, 0] = 0.1  # a constant entry does not differ
    found = ns.diagnostics.mean_test(x, y, key=KEY)
    np.testing.assert_array_equal(found.p_values < 0.01, [[False, False], [True, False]])
    assert found.t[0, 0] == 0 and found.t[1, 0] < -5
    y[:, 0, 1] = (y[:, 0, 1] - 1e3) / 2 + 1e3
    found = ns.diagnostics.variance_test(x, y, key=KEY)
    np.testing.assert_array_equal(found.p_values < 0.01, [[False, True], [False, False]])
    assert found.t[0, 1] > 5


def test_logistic_regression_learns_the_log_ratio_of_two_normals():
    key_x, key_y, key = random.split(KEY, 3)
    x = random.normal(key_x, (2_000, 2))
    y = random.normal(key_y, (1_000, 2)) + jnp.array([1.0, 0.0])
    found = ns.diagnostics.classifier_two_sample_test(x, y, key=key, num_permutations=19)
    # log p/q = 1/2 - x_0, with standard errors of about 0.05; the two divergences sum to 1.
    ratio = [found.log_ratio(jnp.array(point)) for point in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])]
    np.testing.assert_allclose(ratio, [0.5, -0.5, 0.5], atol=0.2)
    assert abs(found.statistic - 1) < 0.25
    assert abs(found.accuracy - scipy.stats.norm.cdf(0.5)) < 4 * np.sqrt(0.25 / 1_000)
    assert found.p_value == 1 / 20
    assert found.log_ratio_x.shape == (2_000,) and found.log_ratio_y.shape == (1_000,)
    with pytest.raises(ValueError, match="For a batch of points use jax.vmap"):
        found.log_ratio(X)
    assert jax.vmap(found.log_ratio)(X).shape == (6,)


@pytest.mark.slow
def test_a_network_sees_a_variance_that_a_linear_logit_does_not():
    x = random.normal(KEY, (200, 2))
    y = 2 * random.normal(random.key(1), (200, 2))
    network = ns.diagnostics.SmallNetwork(width=8, num_steps=60, learning_rate=0.03)
    found = ns.diagnostics.classifier_two_sample_test(
        x, y, key=KEY, classifier=network, num_permutations=19
    )
    assert found.p_value == 1 / 20 and found.accuracy > 0.6
    assert found.log_ratio(jnp.zeros(2)) > 0.5 and found.log_ratio(jnp.full(2, 3.0)) < -0.5


def test_a_sample_is_judged_without_its_fold():
    """A classifier that knows the labels that it was given weights for, and no others."""

    def nearest(z, seen, point):
        return seen[jnp.argmin(jnp.sum((z - point) ** 2, axis=1))]

    def lookup(z, labels, weights, *, key):
        return Partial(nearest, z, jnp.where(weights > 0, labels, 0))

    found = ns.diagnostics.classifier_two_sample_test(
        X, Y, key=KEY, classifier=lookup, num_permutations=1
    )
    assert not np.any(found.log_ratio_x) and not np.any(found.log_ratio_y)
    assert found.log_ratio(X[0]) == 1 and found.log_ratio(Y[0]) == -1


TESTS = {
    "mmd_test": lambda x, y: ns.diagnostics.mmd_test(x, y, key=KEY),
    "energy_distance": lambda x, y: ns.diagnostics.energy_distance(x, y, key=KEY),
    "sliced_wasserstein": lambda x, y: ns.diagnostics.sliced_wasserstein(x, y, key=KEY),
    "mean_test": lambda x, y: ns.diagnostics.mean_test(x, y, key=KEY),
    "variance_test": lambda x, y: ns.diagnostics.variance_test(x, y, key=KEY),
    "classifier": lambda x, y: ns.diagnostics.classifier_two_sample_test(x, y, key=KEY),
    "linear_mmd_test": ns.diagnostics.linear_mmd_test,
}


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
def test_samples_that_cannot_be_compared_are_refused(test):
    x = np.ones((10, 2))
    bad = np.where(np.arange(10)[:, None] == 3, np.nan, x)
    for other, message in [
        (np.ones((10, 3)), r"points of shapes \(2,\) and \(3,\)"),
        (np.ones((0, 2)), r"y must be a batch .* got shape \(0, 2\)"),
        (np.ones((1, 2)), r"y needs at least \d samples, got 1"),
        (bad, "y must be finite, but 1 of 10 samples are not, the first at index 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            test(x, other)


def test_one_fold_or_one_direction_is_refused():
    with pytest.raises(ValueError, match="num_folds must be at least 2, got 1"):
        ns.diagnostics.classifier_two_sample_test(X, Y, key=KEY, num_folds=1)
    with pytest.raises(ValueError, match="num_projections must be at least 2, got 1"):
        ns.diagnostics.sliced_wasserstein(X, Y, key=KEY, num_projections=1)
