# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The score by noise level, where the right answer is known: Gaussians and wrong denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import numpyro_scores as ns
from numpyro_scores.diagnostics import score_by_level

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
MEAN, SCALES = jnp.array([1.0, -2.0]), jnp.array([2.0, 0.5])
POINTS = MEAN + SCALES * random.normal(random.key(1), (600, 2))
LEVELS = np.array([3.0, 1.0, 0.3, 0.1, 0.03])


def exact(x, sigma):
    """The best denoiser of the Gaussian."""
    return MEAN + SCALES**2 / (SCALES**2 + sigma**2) * (x - MEAN)


def scaled(factor):
    """A denoiser whose score is that of the Gaussian times a factor."""
    return lambda x, sigma: x + factor * (exact(x, sigma) - x)


def test_the_score_of_a_gaussian_is_right_at_every_level():
    found = score_by_level(exact, POINTS, LEVELS, key=KEY)
    np.testing.assert_allclose(found.explained, 1, atol=0.1)
    np.testing.assert_allclose(found.slope, 1, atol=0.05)
    np.testing.assert_allclose(found.asymmetry, 0, atol=1e-3)
    assert found.right.all() and found.smallest_right == LEVELS[-1]
    assert np.all(np.diff(found.sigma) < 0)
    assert "down to sigma = 0.03" in str(found)


@pytest.mark.parametrize("factor", [0.5, 1.5, 3.0, -1.0])
def test_a_score_that_is_a_multiple_is_measured(factor):
    # Of s = c s*: G = E|s*|^2 (1 - (1 - c)^2), and the best factor is 1 / c.
    found = score_by_level(scaled(factor), POINTS, LEVELS, key=KEY)
    tolerance = 5 * found.explained_error + 0.05 * factor**2
    assert np.all(np.abs(found.explained - (1 - (1 - factor) ** 2)) < tolerance)
    assert np.all(np.abs(found.slope - 1 / factor) < 5 * found.slope_error + 0.01)
    assert not found.right.any() and np.isnan(found.smallest_right)
    assert "nowhere" in str(found)


def test_a_denoiser_that_returns_its_input_explains_nothing():
    found = score_by_level(lambda x, sigma: x, POINTS, LEVELS, key=KEY)
    np.testing.assert_array_equal(found.explained, 0)
    assert not found.right.any()


def test_the_smallest_right_level_is_found():
    # A network that says the same below a level as at it, as a small one does.
    def rough(x, sigma):
        error = 0.02 * jnp.sin(40 * x)
        return exact(x, sigma) + error

    found = score_by_level(rough, POINTS, LEVELS, key=KEY)
    # The score is off by 0.02 sin / sigma^2: by 0.2 of itself at 0.3, by far more at 0.1.
    assert found.smallest_right == 0.3
    assert found.explained[-1] < 0


def test_explained_is_that_of_the_errors_where_the_score_is_known():
    # G = E|s*|^2 - E|s - s*|^2, of a mixture whose score is known.
    def mixture(x, sigma):
        variance = 0.25 + sigma**2
        weight = jax.nn.sigmoid(4 * x / variance)
        mean = 2 * (2 * weight - 1)
        return x + sigma**2 * (mean - x) / variance

    key_mode, key_noise, key_y = random.split(random.key(2), 3)
    modes = 2.0 * random.rademacher(key_mode, (2_000, 1))
    points = modes + 0.5 * random.normal(key_noise, (2_000, 1))
    sigma = 0.5

    def biased(x, sigma):
        return mixture(x, sigma) + 0.1 * x * sigma**2

    found = score_by_level(biased, points, [sigma], key=KEY)
    y = points + sigma * random.normal(key_y, points.shape)
    true = np.asarray(jax.vmap(lambda y: (mixture(y, sigma) - y) / sigma**2)(y))
    least = 1 / (np.var(points) + sigma**2)
    expected = (np.mean(true**2) - np.mean((0.1 * y) ** 2)) / least
    assert expected > 1  # more structure than a Gaussian
    assert abs(found.explained[0] - expected) < 5 * found.explained_error[0]
    slope = np.mean((true + 0.1 * y) * true) / np.mean((true + 0.1 * y) ** 2)
    assert abs(found.slope[0] - slope) < 5 * found.slope_error[0]


def test_a_rotation_is_told_by_its_asymmetry():
    def turned(x, sigma):
        return exact(x, sigma) + sigma**2 * jnp.array([x[1], -x[0]])

    found = score_by_level(turned, POINTS, [1.0], key=KEY)
    precision = 1 / (SCALES**2 + 1)
    expected = np.sqrt(2 / (2 + np.sum(precision**2)))
    np.testing.assert_allclose(found.asymmetry, expected, rtol=0.05)


def test_a_prior_knows_its_levels():
    prior = ns.DiffusionPrior(exact, ns.VarianceExploding(0.05, 20.0), 2)
    found = score_by_level(prior, POINTS, key=KEY)
    np.testing.assert_allclose(found.sigma, np.geomspace(20.0, 0.05, 12), rtol=1e-5)
    assert found.smallest_right == pytest.approx(0.05)


def test_few_points_in_many_dimensions_meet_the_weaker_bound():
    points = random.normal(KEY, (40, 16))
    found = score_by_level(lambda x, s: x / (1 + s**2), points, [0.1], key=KEY, num_noises=16)
    # The variances of the entries, of which the mean inverse is a little above 1.
    assert abs(found.explained[0] - 1) < 0.15 and found.right.all()


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        ((exact, POINTS), {}, "sigma must be given"),
        ((exact, POINTS, [0.0, 1.0]), {}, "finite positive noise levels"),
        ((exact, POINTS[:1], [1.0]), {}, "at least 2 samples"),
        ((exact, POINTS, [1.0]), {"tolerance": 0}, "tolerance must be in"),
        ((exact, POINTS, [1.0]), {"key": 0}, r"jax.random.key\(0\)"),
        ((lambda x, s: x[:1], POINTS, [1.0]), {}, "shape"),
    ],
)
def test_bad_arguments_are_told(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        score_by_level(*arguments, **{"key": KEY} | options)
