# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Bounds on one side: on the right side of exact values, and equal where theory says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from normalizers.helpers import exact, gaussian_rbm, ising, points_of, potts, rbm, triangles
from scipy.special import entr

import numpyro_scores as ns
from numpyro_scores.normalizers._pairwise import pairwise_form
from numpyro_scores.normalizers.mean_field import mean_field

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
LOWER, BETHE, UPPER = ns.MeanFieldBound(), ns.BetheBound(), ns.TreeReweightedBound()
assert_close = np.testing.assert_allclose


def estimate(d, method):
    return ns.log_normalizer(d, method=method).estimate


@pytest.mark.slow
def test_the_torus_at_five_couplings(x64):
    """Kaufman's exact values are computed by transfer matrices."""

    @jax.jit
    def values(coupling):
        d = ns.Ising((8, 8), coupling)
        return [estimate(d, m) for m in (LOWER, BETHE, ns.TransferMatrix(), UPPER)]

    widths = []
    for coupling in (0.1, 0.2, 0.4406867935, 0.6, 1.0):
        lower, bethe, log_z, upper = map(float, values(coupling))
        assert lower < bethe < log_z < upper
        widths.append((upper - bethe) / 64)
    assert widths[0] < 0.011 and max(widths) < 0.13  # nats a site


@pytest.mark.parametrize(
    "make", [rbm, lambda: rbm().joint(), ising, potts, triangles, gaussian_rbm]
)
def test_the_exact_value_lies_between(x64, make):
    d = make()
    log_z = exact(d)
    found = ns.log_normalizer(d, method=LOWER), ns.log_normalizer(d, method=UPPER)
    assert log_z - 2 < found[0].lower < log_z < found[1].upper < log_z + 2
    assert np.isposinf(found[0].upper) and np.isneginf(found[1].lower)
    assert np.isposinf(found[0].standard_error) and found[1].estimate == found[1].upper


def test_without_interactions_all_are_exact(x64):
    fields = RNG.normal(size=(3, 2))
    d = ns.PairwiseMRF([[0, 1], [1, 2], [2, 0]], np.zeros(3), fields)
    expected = np.sum(np.log(np.sum(np.exp(fields), 1)))
    assert_close([estimate(d, m) for m in (LOWER, BETHE, UPPER)], expected, rtol=1e-10)


def test_on_a_tree_those_of_pairs_are_exact(x64):
    edges = [[1, 0], [1, 2], [3, 1], [5, 4]]  # two trees
    tables, fields = RNG.normal(size=(4, 3, 3)), RNG.normal(size=(6, 3))
    three = ns.PairwiseMRF(edges, tables, fields, 3)
    assert_close(estimate(three, UPPER), exact(three), rtol=1e-10)
    attracting = ns.PairwiseMRF(edges, [0.5, 2.0, 0.0, 1.0], fields[:, :2])
    assert_close(estimate(attracting, BETHE), exact(attracting), rtol=1e-8)
    assert estimate(attracting, LOWER) < exact(attracting) - 1e-3


def test_mean_field_is_the_mean_over_all_states(x64):
    d = triangles()
    edges, form = pairwise_form(d)
    sites = RNG.dirichlet(np.ones(3), size=4)
    points = np.asarray(points_of(d))
    probability = np.prod(sites[np.arange(4), points], axis=1)
    expected = probability @ d.log_prob(points.astype(float)) + entr(probability).sum()
    assert_close(mean_field(edges, form, jnp.asarray(sites)), expected, rtol=1e-10)


def test_mean_field_finds_the_best_independent_sites(x64):
    table, fields = np.array([[1.5, -1.0], [0.2, 2.0]]), np.array([[0.0, 1.0], [0.3, 0.0]])
    up = np.linspace(0.0, 1.0, 401)
    first, second = (np.stack([1 - q, q]) for q in np.meshgrid(up, up, indexing="ij"))
    values = np.einsum("axy,ab,bxy->xy", first, table, second) + entr(first).sum(0)
    values += entr(second).sum(0) + np.einsum("axy,a->xy", first, fields[0])
    values += np.einsum("bxy,b->xy", second, fields[1])
    found = estimate(ns.PairwiseMRF([[0, 1]], table[None], fields), LOWER)
    assert values.max() <= found < values.max() + 1e-4


@pytest.mark.parametrize("method", [LOWER, BETHE, UPPER])
def test_the_derivative_is_that_of_the_optimum(x64, method):
    def bound(coupling):
        return estimate(ns.Ising((2, 3), coupling, 0.3, periodic=False), method)

    h = 1e-4
    slope = (bound(0.3 + h) - bound(0.3 - h)) / (2 * h)
    assert_close(jax.jit(jax.grad(bound))(0.3), slope, rtol=1e-4)


def test_what_is_forbidden_has_no_part_in_the_bounds(x64):
    """Hard cores on a ring of four: seven of sixteen states."""
    apart = np.array([[0.0, 0.0], [0.0, -np.inf]])
    d = ns.PairwiseMRF(
        [[0, 1], [1, 2], [2, 3], [3, 0]], np.tile(apart, (4, 1, 1)), np.zeros((4, 2))
    )
    assert np.log(2) < estimate(d, LOWER) <= np.log(7) < estimate(d, UPPER) < np.log(10)
    clamped = ns.Ising((2, 3), 0.4, np.array([[np.inf, 0.0, 0.1], [0.0, -np.inf, 0.0]]))
    assert estimate(clamped, LOWER) < exact(clamped) < estimate(clamped, UPPER)


def test_words_for_what_has_no_bound():
    with pytest.raises(ValueError, match="BetheBound is a bound for two states, not for 3"):
        estimate(potts(), BETHE)
    with pytest.raises(ValueError, match="all pairs attract, but there is an interaction of -0.8"):
        estimate(ns.Ising((2, 3), -0.2, periodic=False), BETHE)
    with pytest.raises(ValueError, match=r"takes graphs of up to 2\^14 edges, got 16900"):
        estimate(ns.BernoulliRBM(np.zeros((130, 130)), np.zeros(130), np.zeros(130)), UPPER)
    with pytest.raises(ValueError, match="num_trees must be a positive integer"):
        ns.TreeReweightedBound(num_trees=0)
