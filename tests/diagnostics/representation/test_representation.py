# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Measures of representations of planted ones, whose values are known."""

import itertools
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy.stats import entropy

import numpyro_scores as ns
from numpyro_scores.diagnostics import (
    beta_vae_score,
    clustering_scores,
    dci,
    factor_vae_score,
    modularity,
    mutual_information_gap,
    representation_table,
    sap_score,
)

KEY = random.key(0)
RNG = np.random.default_rng(0)
# Four independent factors of five values, each combination once.
GRID = np.array(list(itertools.product(range(5), repeat=4)))
EVEN = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
BITS = np.array(list(itertools.product([-1, 1], repeat=3)))
MEASURES = {
    "beta_vae_score": lambda z, v: beta_vae_score(z, v, key=KEY, num_batches=400),
    "factor_vae_score": lambda z, v: factor_vae_score(z, v, key=KEY, num_batches=400),
    "mutual_information_gap": mutual_information_gap,
    "sap_score": sap_score,
    "dci": lambda z, v: dci(z, v, key=KEY),
    "modularity": modularity,
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_perfect_code_has_all_of_it(name):
    codes = (GRID * [2.0, -1.0, 0.1, 5.0])[:, [2, 0, 3, 1]]
    np.testing.assert_allclose(MEASURES[name](codes, GRID).value, 1, atol=1e-3)


@pytest.mark.parametrize("name", ["mutual_information_gap", "sap_score", "dci"])
@pytest.mark.parametrize("codes", [(GRID - 2) @ EVEN, RNG.normal(size=GRID.shape)])
def test_what_lies_in_all_codes_alike_and_noise_have_none_of_it(name, codes):
    assert abs(MEASURES[name](codes, GRID).value) < 0.1


@pytest.mark.parametrize("name", ["beta_vae_score", "factor_vae_score"])
def test_noise_is_told_by_chance(name):
    found = MEASURES[name](RNG.normal(size=GRID.shape), GRID)
    assert found.chance == 1 / 4 and abs(found.value - 1 / 4) < 4 * found.standard_error


def test_the_beta_vae_score_misses_that_one_factor_is_not_in_the_code_and_the_other_does_not():
    factors = np.tile(BITS[:, :2], (50, 1))
    codes = factors * [1, 0] + RNG.choice([-1, 1], size=factors.shape) * [0, 1]
    assert MEASURES["beta_vae_score"](codes, factors).value == 1
    # Of the missing factor half of the votes go to the code of the other.
    found = MEASURES["factor_vae_score"](codes, factors)
    assert abs(found.value - 0.75) < 4 * found.standard_error
    rotated = MEASURES["beta_vae_score"]((GRID - 2) @ EVEN, GRID).value
    assert rotated < 0.5  # it is not blind to all of them


def test_the_gap_is_that_of_a_joint_table():
    counts = np.array([[[3, 1], [0, 2]], [[1, 4], [2, 0]], [[1, 1], [5, 3]]])  # factor, two codes
    cells = np.array(list(np.ndindex(*counts.shape)))
    samples = np.repeat(cells, counts.ravel(), axis=0)
    found = mutual_information_gap(samples[:, 1:] * [7.0, -0.3], samples[:, :1])

    def information(axis):
        table = counts.sum(axis=axis)
        return sum(entropy(table.sum(axis=a)) for a in (0, 1)) - entropy(table.ravel())

    best, second = information(2), information(1)
    np.testing.assert_allclose(found.information[:, 0], [best, second])
    gap = abs(best - second) / entropy(counts.sum(axis=(1, 2)))
    np.testing.assert_allclose(found.value, gap)


def test_a_code_of_many_values_lies_in_bins_of_equal_width():
    code = np.linspace(0, 1, 1000, endpoint=False)[:, None]
    found = mutual_information_gap(code, code > 0.5, num_bins=4)
    np.testing.assert_allclose(found.value, 1, atol=0.01)
    assert mutual_information_gap(code, code > 0.375, num_bins=4).value < 0.8


def test_modularity_of_a_code_of_one_factor_and_a_code_of_two():
    a, b, _ = BITS.T
    found = modularity(np.stack([a, 2 * a + b, a * b], axis=1), BITS[:, :2])
    np.testing.assert_allclose(found.of_codes, [1, 0, 0], atol=1e-12)
    three = modularity(np.stack([2 * a + b], axis=1), BITS)
    np.testing.assert_allclose(three.value, 1 / 2)


def test_sap_is_the_gap_of_the_shares_that_lines_explain():
    a, b, c = BITS.T
    found = sap_score(np.stack([a + b, a + 3 * c, 0 * a], axis=1), a[:, None])
    np.testing.assert_allclose(found.scores[:, 0], [1 / 2, 1 / 10, 0], atol=1e-12)
    np.testing.assert_allclose(found.value, 1 / 2 - 1 / 10)
    np.testing.assert_allclose(sap_score((a + b)[:, None], a[:, None]).value, 1 / 2)


def test_sap_of_categories_is_the_gap_of_balanced_accuracies():
    labels = RNG.choice(3, p=[0.7, 0.2, 0.1], size=2_000)[:, None]
    codes = np.concatenate([np.array([1.0, 5.0, 3.0])[labels], RNG.normal(size=(2_000, 1))], 1)
    found = sap_score(codes, labels, categorical=True, key=KEY)
    np.testing.assert_allclose(found.scores[:, 0], [1, 1 / 3], atol=0.08)
    np.testing.assert_allclose(found.value, found.scores[0, 0] - found.scores[1, 0])


def test_dci_by_hand():
    """Importances (1, 1) and (0, 1): the first code serves both, the second factor needs both."""
    from sklearn.linear_model import LinearRegression

    z = np.tile(BITS[:, :2], (4, 1))
    found = dci(z, z @ [[1, -1], [0, 1]], key=KEY, learner=LinearRegression())
    np.testing.assert_allclose(found.importances, [[1, 1], [0, 1]], atol=1e-12)
    np.testing.assert_allclose([found.value, found.completeness], [1 / 3, 1 / 2])
    np.testing.assert_allclose(found.informativeness, 1)
    categorical = dci(GRID, GRID[:, ::-1], key=KEY, categorical=True)
    np.testing.assert_allclose(categorical[:3], [1, 1, 1], atol=1e-3)


def test_neither_units_nor_precision_of_a_code_matter():
    exact = sap_score(GRID, GRID).scores
    for codes in (GRID * 1e300, GRID * 1e-300 + 0.0, jnp.asarray(GRID, jnp.bfloat16)):
        np.testing.assert_allclose(sap_score(codes, GRID).scores, exact, atol=1e-12)
    # A constant code of a number that rounds has no part in anything.
    constant = np.where(np.arange(4) == 1, 0.1, GRID)
    assert np.all(sap_score(constant, GRID).scores[1] == 0)


def test_clusters_that_are_the_classes_and_one_cluster_for_two():
    labels = np.repeat(np.arange(4), 50)
    corners = np.array([[0, 0], [0, 9], [9, 0], [9, 9]])[labels]
    codes = corners + RNG.normal(size=corners.shape)
    for names in (labels, np.array(["a", "b", "c", "d"])[labels]):
        np.testing.assert_allclose(clustering_scores(codes, names, key=KEY), 1)
    found = clustering_scores(codes * [1, 0], labels, key=KEY, num_clusters=2)
    # log 2 of log 4 is told, and all of each class lies in one cluster.
    np.testing.assert_allclose(found, [2 / 3, 1 / 2, 1])


def test_the_table_has_every_measure():
    x = RNG.normal(size=(len(GRID), 3, 2))
    found = representation_table(
        GRID, GRID, key=KEY, labels=GRID[:, 0] > 2, inputs=x, reconstructions=x + [0.1, -0.1]
    )
    assert len(found.rows) == 13 and len(str(found).splitlines()) == 13
    assert all(found.rows[name] > 0.99 for name in list(found.rows)[:8])
    np.testing.assert_allclose(found.rows["mean squared error"], 0.01, rtol=1e-5)
    np.testing.assert_allclose(found.rows["explained variance"], 0.99, atol=2e-3)
    with pytest.raises(ValueError, match="give both, or neither"):
        representation_table(GRID, GRID, key=KEY, inputs=x)


@pytest.mark.parametrize("name", MEASURES)
def test_what_has_no_measure_is_refused(name):
    measure, constant = MEASURES[name], GRID * [1, 1, 0, 1]
    with pytest.raises(ValueError, match=r"factors\[:, 2\] has one value, 0"):
        measure(GRID, constant)
    with pytest.raises(ValueError, match="4 factors of 3 samples: rows are samples"):
        measure(GRID[:3], GRID[:3])
    with pytest.raises(ValueError, match="got 625 rows of codes and 4 of factors.*transpose"):
        measure(GRID, GRID.T)
    with pytest.raises(ValueError, match="codes must be finite, but 1 of 625 samples"):
        measure(np.where(np.arange(625)[:, None] == 7, np.nan, GRID), GRID)
    if name not in ("sap_score", "dci"):  # which take continuous factors, as numbers
        with pytest.raises(ValueError, match=rf"{name} needs discrete.*has 625 values in 625"):
            measure(GRID, RNG.normal(size=GRID.shape))


def test_words_for_what_is_missing(monkeypatch):
    z = GRID.astype(float)
    with pytest.raises(ValueError, match="sap_score needs discrete factors"):
        sap_score(z, RNG.normal(size=GRID.shape), categorical=True, key=KEY)
    with pytest.raises(ValueError, match="sap_score needs a random key, got None"):
        sap_score(z, GRID, categorical=True)
    with pytest.raises(ValueError, match="needs a code that varies"):
        factor_vae_score(0 * z, GRID, key=KEY)
    with pytest.raises(ValueError, match="modularity compares factors and needs two or more"):
        modularity(z, GRID[:, :1])
    with pytest.raises(ValueError, match="factors must be real numbers, got <U"):
        ns.diagnostics.mutual_information_gap(z, GRID.astype(str))
    with pytest.raises(ValueError, match="codes must be real numbers, got complex128"):
        sap_score(1j * z, GRID)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ImportError, match=r"dci learns with scikit-learn: pip install"):
        dci(z, GRID, key=KEY)
