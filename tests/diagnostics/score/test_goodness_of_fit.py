# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Stein discrepancies and thinning: a double loop, quadrature, greedy choice by brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import numpyro_scores as ns
from numpyro_scores.diagnostics.score import finite_set_stein, kernel_stein

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
POINTS = np.random.default_rng(0).normal(size=(7, 3)) + 10.0


def cubic_score(x):
    return -x - 0.1 * (x - 10) ** 3 + jnp.roll(x, 1)


def normal_score(x):
    return -x


def imq_by_autodiff(x, y, lengthscale):
    """The Langevin Stein kernel from its definition, by derivatives of the kernel."""

    def k(x, y):
        return (1 + jnp.sum((x - y) ** 2) / lengthscale**2) ** -0.5

    grad_x, grad_y = jax.grad(k, 0)(x, y), jax.grad(k, 1)(x, y)
    trace = jnp.trace(jax.jacfwd(jax.grad(k, 0), 1)(x, y))
    a, b = cubic_score(x), cubic_score(y)
    return trace + a @ grad_y + b @ grad_x + k(x, y) * a @ b


def double_loop(x, lengthscale):
    rows = jax.vmap(jax.vmap(imq_by_autodiff, (None, 0, None)), (0, None, None))
    return np.asarray(jax.jit(rows)(jnp.asarray(x), jnp.asarray(x), lengthscale))


def test_the_discrepancy_is_that_of_a_double_loop_over_the_definition(x64):
    matrix = double_loop(POINTS, 1.7)
    found = ns.diagnostics.kernel_stein_discrepancy(
        POINTS, cubic_score, lengthscale=1.7, block_size=3
    )
    pairs = np.sum(matrix) - np.trace(matrix)
    np.testing.assert_allclose(found.statistic, pairs / 42, rtol=1e-10)
    np.testing.assert_allclose(found.v_statistic, np.mean(matrix), rtol=1e-10)
    assert np.isnan(found.p_value)


def test_the_length_scale_is_the_median_distance(x64):
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(POINTS, 2)]
    found = ns.diagnostics.kernel_stein_discrepancy(POINTS, cubic_score)
    np.testing.assert_allclose(found.lengthscale, np.median(distances), rtol=1e-12)


def test_an_energy_has_the_discrepancy_of_its_score():
    x = random.normal(KEY, (20, 2, 2))
    of_energy = ns.diagnostics.kernel_stein_discrepancy(x, lambda x: jnp.sum(x**2) / 2)
    of_score = ns.diagnostics.kernel_stein_discrepancy(x, normal_score)
    np.testing.assert_allclose(of_energy.statistic, of_score.statistic, rtol=1e-4)


def test_the_mean_of_the_stein_kernel_under_the_density_is_zero(x64):
    """By Gauss-Hermite quadrature of 80 nodes, for a place that is not the origin."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    x, place = jnp.asarray(nodes)[:, None], jnp.array([0.7])
    imq = kernel_stein.stein_kernel(place, -place, x, -x, jnp.asarray(1.5))
    assert abs(weights @ imq) / np.sum(weights * np.abs(imq)) < 1e-6
    feature = jax.vmap(finite_set_stein.stein_features, (0, 0, None, None))
    gauss = feature(x, -x, place[None], 1.5)[:, 0, 0]
    assert abs(weights @ gauss) / np.sum(weights * np.abs(gauss)) < 1e-12


def test_the_bootstrap_is_over_signed_pairs(x64):
    signs = kernel_stein.wild_signs(KEY, 7, 50, 0.5)
    matrix = double_loop(POINTS, 1.7)
    pairs = matrix - np.diag(np.diag(matrix))
    bootstrap = np.einsum("ib,ij,jb->b", signs, pairs, signs)
    found = ns.diagnostics.kernel_stein_discrepancy(
        POINTS, cubic_score, key=KEY, lengthscale=1.7, num_bootstrap=50
    )
    assert found.p_value == (1 + np.sum(bootstrap >= np.sum(pairs))) / 51


def test_signs_flip_as_often_as_they_are_told():
    signs = kernel_stein.wild_signs(KEY, 101, 1_000, 0.1)
    flips = np.mean(signs[1:] != signs[:-1])
    assert set(np.unique(signs)) == {-1, 1}
    assert abs(flips - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 100_000)


def test_the_finite_set_discrepancy_is_that_of_a_double_loop(x64):
    found = ns.diagnostics.finite_set_stein_discrepancy(
        POINTS, cubic_score, key=KEY, num_locations=4, lengthscale=1.3, num_bootstrap=10
    )

    def feature(x, v):
        k = lambda x: jnp.exp(-jnp.sum((x - v) ** 2) / (2 * 1.3**2))  # noqa: E731
        return cubic_score(x) * k(x) + jax.grad(k)(x)

    each = jax.vmap(jax.vmap(feature, (None, 0)), (0, None))
    features = np.asarray(each(jnp.asarray(POINTS), found.locations))
    products = np.einsum("ajd,bjd->jab", features, features) / 12
    pairs = np.sum(products, axis=(1, 2)) - np.trace(products, axis1=1, axis2=2)
    np.testing.assert_allclose(found.witness, pairs / 42, rtol=1e-10)
    np.testing.assert_allclose(found.statistic, np.sum(pairs) / 42, rtol=1e-10)


def test_thinning_is_the_greedy_choice_by_brute_force(x64):
    matrix = double_loop(POINTS, 1.7)
    chosen = []
    for _ in range(5):
        sums = [np.sum(matrix[np.ix_([*chosen, i], [*chosen, i])]) for i in range(7)]
        chosen.append(int(np.argmin(sums)))
    found = ns.diagnostics.stein_thinning(POINTS, cubic_score, 5, lengthscale=1.7)
    assert found.indices.tolist() == chosen
    exact = [np.sqrt(np.mean(matrix[np.ix_(chosen[:k], chosen[:k])])) for k in range(1, 6)]
    np.testing.assert_allclose(found.discrepancy, exact, rtol=1e-10)


def test_thinning_leaves_out_what_was_drawn_before_the_chain_was_stationary():
    far = random.normal(KEY, (100, 2)) + 6
    x = jnp.concatenate([far, random.normal(random.key(1), (400, 2))])
    found = ns.diagnostics.stein_thinning(x, normal_score, 40)
    assert np.all(np.asarray(found.indices) >= 100)
    # The first 40 of the stationary part, the usual thinning, are further from the target.
    usual = ns.diagnostics.kernel_stein_discrepancy(x[100::10], normal_score)
    assert found.discrepancy[-1] < np.sqrt(usual.v_statistic) / 2


def test_the_fisher_divergence_of_two_normals_is_its_closed_form():
    x = random.normal(KEY, (5_000, 2))
    found = ns.diagnostics.fisher_divergence(x, lambda x: -x / 4, normal_score)
    exact = 2 * (1 - 1 / 4) ** 2 / 2
    # The standard error of a sum of two chi squares, of variance 2 each.
    np.testing.assert_allclose(found.standard_error, exact / np.sqrt(5_000), rtol=0.1)
    assert abs(found.value - exact) < 4 * found.standard_error


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((0, 2)), r"shape \(0, 2\)"),
        (np.zeros(5), r"at least one event axis, got shape \(5,\)"),
        (np.zeros((1, 2)), "x needs at least 2 samples, got 1"),
        (np.array([[0.0], [np.nan], [1.0]]), "1 of 3 samples are not, the first at index 1"),
    ],
)
def test_samples_that_cannot_be_judged_are_refused(x, message):
    for judge in (
        lambda: ns.diagnostics.kernel_stein_discrepancy(x, normal_score),
        lambda: ns.diagnostics.finite_set_stein_discrepancy(x, normal_score, key=KEY),
        lambda: ns.diagnostics.fisher_divergence(x, normal_score, normal_score),
        lambda: ns.diagnostics.stein_thinning(x, normal_score, 2),
    ):
        with pytest.raises(ValueError, match=message):
            judge()


def test_arguments_out_of_range_are_refused():
    x = np.ones((3, 2))
    with pytest.raises(ValueError, match="flip_probability must be in"):
        ns.diagnostics.kernel_stein_discrepancy(x, normal_score, key=KEY, flip_probability=0.7)
    with pytest.raises(ValueError, match="lengthscale must be a finite positive number"):
        ns.diagnostics.kernel_stein_discrepancy(x, normal_score, lengthscale=0.0)
    with pytest.raises(ValueError, match="num_points must be a positive integer"):
        ns.diagnostics.stein_thinning(x, normal_score, 0)
    with pytest.raises(ValueError, match="Expected an energy"):
        ns.diagnostics.kernel_stein_discrepancy(x, lambda x: x[:1])
