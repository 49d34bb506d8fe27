# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Measures of sample quality against SciPy, loops over pairs, and what they are in theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax import random

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)) @ RNG.normal(size=(4, 4)) + 5
Y = RNG.normal(size=(9, 4)) @ RNG.normal(size=(4, 4)) + 6


def frechet(x, y):
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    means = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    return means + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)


def kernel_mmd(x, y):
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(x):
        k = kernel(x, x)
        return (np.sum(k) - np.trace(k)) / (len(x) * (len(x) - 1))

    return within(x) + within(y) - 2 * np.mean(kernel(x, y))


def test_the_frechet_distance_is_that_of_scipys_matrix_root(x64):
    found = ns.diagnostics.frechet_distance(X, Y)
    np.testing.assert_allclose(found.statistic, frechet(X, Y), rtol=1e-10)
    np.testing.assert_allclose(found.mean_part + found.covariance_part, found.statistic)
    np.testing.assert_allclose(found.mean_part, np.sum((X.mean(0) - Y.mean(0)) ** 2), rtol=1e-12)


def test_the_frechet_distance_is_over_the_features(x64):
    matrix = RNG.normal(size=(2, 4))
    found = ns.diagnostics.frechet_distance(
        X.reshape(-1, 2, 2), Y.reshape(-1, 2, 2), lambda x: matrix @ x.ravel(), block_size=5
    )
    np.testing.assert_allclose(found.statistic, frechet(X @ matrix.T, Y @ matrix.T), rtol=1e-10)


def test_the_frechet_distance_of_fewer_samples_than_features_in_float32():
    x, y = RNG.normal(size=(2, 5, 8))
    found = ns.diagnostics.frechet_distance(x, y)
    np.testing.assert_allclose(found.statistic, frechet(x, y), rtol=1e-4)
    assert abs(ns.diagnostics.frechet_distance(x, x).statistic) < 1e-4


def test_the_kernel_distance_is_that_over_all_pairs_and_its_error_the_jackknifes(x64):
    found = ns.diagnostics.kernel_distance(X, Y, block_size=5)
    np.testing.assert_allclose(found.value, kernel_mmd(X, Y), rtol=1e-10)
    without_x = np.array([kernel_mmd(np.delete(X, i, 0), Y) for i in range(len(X))])
    without_y = np.array([kernel_mmd(X, np.delete(Y, i, 0)) for i in range(len(Y))])
    variance = np.var(without_x) * (len(X) - 1) + np.var(without_y) * (len(Y) - 1)
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance), rtol=1e-10)


def test_the_kernel_distance_is_unbiased_and_its_error_right():
    def repeat(key):
        key_x, key_y = random.split(key)
        x, y = random.normal(key_x, (30, 2)) + 0.7, random.normal(key_y, (40, 2))
        return ns.diagnostics.kernel_distance(x, y)

    found = jax.vmap(repeat)(random.split(KEY, 400))
    x = random.normal(random.key(2), (4_000, 2))
    exact = ns.diagnostics.kernel_distance(x + 0.7, random.normal(random.key(3), (4_000, 2)))
    spread = np.std(found.value)
    assert abs(np.mean(found.value) - exact.value) < 4 * np.hypot(spread / 20, exact.standard_error)
    assert abs(np.mean(found.standard_error**2) / spread**2 - 1) < 0.35


@pytest.mark.parametrize(
    "logits, sharpness, diversity",
    [
        (50.0 * np.eye(3)[[0, 1, 2, 0, 1, 2]], 1, 3),  # sure, of all three
        (50.0 * np.eye(3)[[0, 0, 0]], 1, 1),  # sure, of one
        (np.zeros((6, 3)), 1 / 3, 3),  # never sure
    ],
)
def test_the_inception_score_is_sharpness_times_diversity(logits, sharpness, diversity):
    found = ns.diagnostics.inception_score(logits, lambda x: x)
    np.testing.assert_allclose(found.sharpness, sharpness, rtol=1e-5)
    np.testing.assert_allclose(found.diversity, diversity, rtol=1e-5)
    np.testing.assert_allclose(found.score, sharpness * diversity, rtol=1e-5)


def test_the_error_of_the_inception_score_is_its_spread():
    def repeat(key):
        return ns.diagnostics.inception_score(2 * random.normal(key, (200, 4)), lambda x: x)

    found = jax.vmap(repeat)(random.split(KEY, 400))
    # A standard deviation of 400 values has an error of 3.5 percent.
    assert abs(np.mean(found.standard_error) / np.std(found.score) - 1) < 0.15
    np.testing.assert_allclose(found.score, found.sharpness * found.diversity, rtol=1e-4)


def in_balls(centres, points, k):
    """Whether each point is in each ball, by a loop over all pairs."""
    radii = [np.sort([np.linalg.norm(a - b) for b in centres])[k] for a in centres]
    return np.array(
        [[np.linalg.norm(c - p) <= r for c, r in zip(centres, radii, strict=True)] for p in points]
    )


def test_precision_recall_density_and_coverage_are_those_of_a_loop(x64):
    real, generated = RNG.normal(size=(25, 2)), 1.3 * RNG.normal(size=(20, 2)) + 0.5
    found = ns.diagnostics.precision_recall(real, generated, num_neighbours=2, block_size=7)
    np.testing.assert_allclose(found.precision, in_balls(real, generated, 2).any(1).mean())
    np.testing.assert_allclose(found.recall, in_balls(generated, real, 2).any(1).mean())
    found = ns.diagnostics.density_coverage(real, generated, num_neighbours=3, block_size=7)
    inside = in_balls(real, generated, 3)
    np.testing.assert_allclose(found.density, np.mean(np.sum(inside, axis=1)) / 3)
    np.testing.assert_allclose(found.coverage, np.mean(inside.any(axis=0)))


def test_density_and_coverage_of_one_density_are_what_the_paper_says():
    n, m, k = 60, 40, 4

    def repeat(key):
        key_x, key_y = random.split(key)
        x, y = random.normal(key_x, (n, 3)), random.normal(key_y, (m, 3))
        return ns.diagnostics.density_coverage(x, y, num_neighbours=k)

    found = jax.vmap(repeat)(random.split(KEY, 300))
    exact = 1 - np.prod([(n - i) / (n + m - i) for i in range(1, k + 1)])
    for values, expected in ((found.density, 1), (found.coverage, exact)):
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(300)


def test_a_missing_mode_costs_recall_and_not_precision():
    modes = np.array([[-5.0, 0.0], [5.0, 0.0]])
    real = modes[RNG.integers(2, size=200)] + RNG.normal(size=(200, 2))
    generated = modes[0] + RNG.normal(size=(200, 2))
    found = ns.diagnostics.precision_recall(real, generated)
    assert found.precision > 0.9 and abs(found.recall - 0.5) < 0.15


def windows(x, y, data_range, size, sigma):
    """SSIM by a loop over all windows."""
    offsets = np.arange(size) - size // 2
    w = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    w /= w.sum()
    values = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = (z[i : i + size, j : j + size] for z in (x, y))
            ma, mb = np.sum(w * a), np.sum(w * b)
            va, vb = np.sum(w * (a - ma) ** 2), np.sum(w * (b - mb) ** 2)
            cov = np.sum(w * (a - ma) * (b - mb))
            c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
            values.append(
                (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )
    return np.mean(values)


def test_ssim_is_that_of_a_loop_over_windows(x64):
    x, y = RNG.uniform(size=(2, 9, 8))
    found = ns.diagnostics.ssim(x, y, data_range=1.0, window_size=5, sigma=1.2)
    np.testing.assert_allclose(found, windows(x, y, 1.0, 5, 1.2), rtol=1e-12)


def test_psnr_and_ssim_are_those_of_scikit_image(x64):
    """scikit-image 0.26; SSIM with gaussian_weights=True, use_sample_covariance=False."""
    rng = np.random.default_rng(7)
    reference = rng.uniform(size=(20, 16, 3))
    x = np.clip(reference + 0.1 * rng.normal(size=reference.shape), 0, 1)
    np.testing.assert_allclose(
        ns.diagnostics.psnr(x, reference, data_range=1.0), 20.2477242327, rtol=1e-9
    )
    np.testing.assert_allclose(
        ns.diagnostics.ssim(x, reference, data_range=1.0), 0.928888304473, rtol=1e-9
    )
    gray = ns.diagnostics.ssim(x[..., 0], reference[..., 0], data_range=1.0)
    np.testing.assert_allclose(gray, 0.927819846244, rtol=1e-9)
    np.testing.assert_allclose(ns.diagnostics.ssim(x, x, data_range=1.0), 1, rtol=1e-12)


def test_pictures_and_features_that_do_not_fit_are_refused():
    picture = np.ones((12, 12))
    with pytest.raises(ValueError, match=r"one shape and pixels, got \(12, 12\) and \(12, 11\)"):
        ns.diagnostics.psnr(picture, picture[:, 1:], data_range=1.0)
    with pytest.raises(ValueError, match="reference must be finite, but 144 of its pixels"):
        ns.diagnostics.ssim(picture, picture * np.nan, data_range=1.0)
    with pytest.raises(ValueError, match=r"got shape \(8, 8\) and window_size 11"):
        ns.diagnostics.ssim(picture[:8, :8], picture[:8, :8], data_range=1.0)
    with pytest.raises(ValueError, match="data_range must be a finite positive"):
        ns.diagnostics.psnr(picture, picture, data_range=0.0)
    with pytest.raises(ValueError, match=r"features\(x\) must be finite"):
        ns.diagnostics.frechet_distance(X, Y, lambda x: jnp.log(x - 100))
    with pytest.raises(ValueError, match="x needs at least 4 samples, got 3"):
        ns.diagnostics.precision_recall(X[:3], Y)
    with pytest.raises(ValueError, match=r"points of shapes \(4,\) and \(3,\)"):
        ns.diagnostics.density_coverage(X, Y[:, 1:])
    with pytest.raises(ValueError, match="degree must be a positive integer, got 2.5"):
        ns.diagnostics.kernel_distance(X, Y, degree=2.5)
