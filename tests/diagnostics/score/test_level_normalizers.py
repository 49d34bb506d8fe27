# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The normaliser of an energy at every noise level, where it is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.scipy.special import logsumexp

from numpyro_scores import DiffusionPrior, VarianceExploding
from numpyro_scores.diagnostics import level_normalizers
from numpyro_scores.diagnostics.score.level_normalizers import _combined, _with_disagreement
from numpyro_scores.diagnostics.score.level_populations import Particles, resampled_and_moved

pytestmark = pytest.mark.usefixtures("quick_compilation")

PROCESS = VarianceExploding(sigma_min=0.1, sigma_max=20.0)
MEANS, SCALES = np.array([[-3.0, 0.0, 1.0], [2.0, 2.0, -1.0]]), np.array([0.2, 1.0, 0.5])


def energy(x, sigma):
    """Of a mixture with weights 0.3 and 0.7, whose normaliser is not 1 but `exp(-offset)`."""
    variance = SCALES**2 + sigma**2
    terms = -jnp.sum((x - MEANS) ** 2 / variance + jnp.log(2 * jnp.pi * variance), -1) / 2
    return offset(sigma) - logsumexp(terms + jnp.log(np.array([0.3, 0.7])))


def offset(sigma):
    return 0.7 + 0.4 * jnp.log(sigma)


def test_it_finds_the_normaliser_of_a_mixture_at_every_level():
    prior = DiffusionPrior(energy, PROCESS, 3)
    found = level_normalizers(prior, random.key(0), num_levels=40, num_particles=200, num_moves=1)
    assert found.sigma.shape == (40,)
    np.testing.assert_allclose(np.asarray(found.sigma)[[0, -1]], [20.0, 0.1], rtol=1e-5)
    exact = -offset(found.sigma)
    for value, error in [
        (found.log_normalizer, found.standard_error),
        (found.fewer_moves, found.fewer_moves_error),
    ]:
        assert np.all(error < 0.15)
        # The spread of eight populations, and correlated levels.
        np.testing.assert_array_less(np.abs(value - exact), 0.01 + 4 * error)
    assert np.all((found.accept_prob > 0.3) & (found.accept_prob < 0.95))
    assert len(str(found).splitlines()) == 13
    # The particles are of the smallest level, and of the second mode with its weight.
    assert found.particles.shape == (8, 200, 3)
    is_second = found.particles[..., 0] > -1
    assert abs(is_second.mean() - 0.7) < 4 * is_second.mean(axis=1).std() / np.sqrt(7)
    second = found.particles[is_second]
    np.testing.assert_allclose(second.std(axis=0), np.hypot(SCALES, 0.1), rtol=0.15)
    # As the normaliser of a prior it makes it a density.
    d = DiffusionPrior(energy, PROCESS, 3, log_normalizer=found)
    x = np.array([1.0, 0.0, 0.0])
    for sigma in (0.3, 0.35, 5.0):
        expected = -energy(x, sigma) + offset(sigma)
        np.testing.assert_allclose(jax.jit(d.at(sigma).log_prob)(x), expected, atol=0.3)


@pytest.mark.slow
def test_its_errors_are_as_large_as_it_says():
    prior = DiffusionPrior(energy, PROCESS, 3)
    z = []
    for seed in range(25):
        found = level_normalizers(prior, random.key(seed), num_levels=20, num_particles=32)
        errors = found.log_normalizer + offset(found.sigma)
        z.append(np.asarray(errors / found.standard_error)[[5, 12, 19]])
    assert 0.5 < np.sqrt(np.mean(np.square(z))) < 1.5
    assert np.mean(np.abs(z) < 2) > 0.85


def test_a_difference_between_the_runs_raises_the_error_of_both():
    log_z = jnp.log(jnp.array([[1.0], [1.1], [0.9], [1.0], [1.05], [0.95], [1.0], [1.0]]))
    ones = jnp.ones_like(log_z)
    value, error, *_ = _combined(log_z, ones, ones)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    # The standard deviation of a mean of eight, and of Student's t with seven degrees of freedom.
    spread = np.std(np.exp(log_z), ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(error, spread * np.sqrt(7 / 5), rtol=1e-5)
    apart = value + 10 * error
    both = _with_disagreement(value, error, apart, error)
    np.testing.assert_allclose(np.hypot(*both), np.abs(apart - value), rtol=1e-5)
    same = _with_disagreement(value, error, value, error)
    np.testing.assert_allclose(same, [error, error])


def test_its_moves_leave_the_density_as_it_is():
    n, d = 4_000, 2
    x = random.normal(random.key(0), (n, d))

    def standard(x, sigma):
        return jnp.sum(x**2) / 2

    start = Particles(x, jnp.sum(x**2, axis=1) / 2, x, jnp.array(0.5), jnp.array(0.0), 1.0)
    moved, accept_prob = jax.jit(partial(resampled_and_moved, standard, 5))(
        start, jnp.zeros(n), 1.0, random.key(1)
    )
    assert 0.5 < accept_prob < 0.95
    assert np.abs(np.corrcoef(moved.x[:, 0], x[:, 0])[0, 1]) < 0.3
    np.testing.assert_allclose(moved.x.var(axis=0), 1, atol=4 * np.sqrt(2 / n))
    np.testing.assert_allclose(moved.energy, jnp.sum(moved.x**2, axis=1) / 2, rtol=1e-5)


def test_what_does_not_fit_is_told():
    by_denoiser = DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), PROCESS, 3)
    with pytest.raises(ValueError, match="made of an energy, .*, got DiffusionPrior"):
        level_normalizers(by_denoiser, random.key(0))
    prior = DiffusionPrior(energy, PROCESS, 3)
    with pytest.raises(ValueError, match="num_levels must be at least 2"):
        level_normalizers(prior, random.key(0), num_levels=1)
    with pytest.raises(ValueError, match="level_normalizers needs a random key, got the integer"):
        level_normalizers(prior, 0)
