# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The distribution of the rank statistic by enumeration, and the least of many p-values."""

import itertools
import math

import numpy as np

from numpyro_scores.diagnostics.calibration import ranks

RNG = np.random.default_rng(0)


def test_the_level_is_that_of_all_histograms():
    """Of 5 ranks from 0 to 3, each histogram with its multinomial probability."""
    size, num_ranks = 5, 4
    tails = ranks.binomial_tails(size, num_ranks)
    statistics, probabilities = [], []
    for counts in itertools.product(range(size + 1), repeat=num_ranks):
        if sum(counts) == size:
            cumulated = np.cumsum(counts)[:-1]
            statistics.append(min(tails[cumulated, range(num_ranks - 1)]))
            ways = math.factorial(size) / math.prod(map(math.factorial, counts))
            probabilities.append(ways / num_ranks**size)
    statistics, probabilities = np.array(statistics), np.array(probabilities)
    for level in np.unique(statistics):
        exact = probabilities[statistics <= level * (1 + 1e-9)].sum()
        np.testing.assert_allclose(ranks.tail_level(tails, level), exact, rtol=1e-10)


def test_levels_between_those_computed_are_close():
    tails = ranks.binomial_tails(60, 20)
    levels = np.geomspace(1e-12, 0.9, 300)
    found = ranks.tail_levels(tails, levels)
    for i in range(0, 300, 30):
        np.testing.assert_allclose(found[i], ranks.tail_level(tails, levels[i]), rtol=0.25)
    # The least is computed, not interpolated.
    np.testing.assert_allclose(found[0], ranks.tail_level(tails, levels[0]), rtol=1e-10)
    assert found[0] < 1e-10


def test_of_five_hundred_quantities_one_that_is_wrong_is_found():
    values = RNG.integers(20, size=(200, 500))
    assert ranks.family_p_value(ranks.uniformity(values, 20).p_value) > 0.01
    values[:, 137] = np.clip(RNG.normal(10, 3.5, 200).astype(int), 0, 19)  # too narrow
    found = ranks.uniformity(values, 20).p_value
    assert np.argmin(found) == 137
    assert ranks.family_p_value(found) < 0.001


def test_the_least_of_many_p_values_of_uniform_ranks_is_uniform():
    tests = ranks.uniformity(RNG.integers(20, size=(100, 400 * 50)), 20)
    families = [ranks.family_p_value(p) for p in tests.p_value.reshape(400, 50)]
    for level in (0.05, 0.2, 0.5):
        error = np.sqrt(level * (1 - level) / 400)
        assert abs(np.mean(np.array(families) <= level) - level) < 4 * error


def test_the_family_of_one_is_its_own():
    np.testing.assert_allclose(ranks.family_p_value(np.array([0.3])), 0.3)
    np.testing.assert_allclose(ranks.family_p_value(np.full(10**6, 1e-12)), 1e-6, rtol=1e-5)
    assert ranks.family_p_value(np.ones(3)) == 1
