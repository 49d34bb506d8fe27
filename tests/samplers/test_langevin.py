# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Annealed Langevin dynamics of a Gaussian prior, whose steps are affine maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_scores as ns
from numpyro_scores.samplers import Langevin

pytestmark = pytest.mark.usefixtures("quick_compilation")

MEAN, VARIANCE = 0.7, 0.25


def wiener(x, sigma):
    return MEAN + VARIANCE / (VARIANCE + sigma**2) * (x - MEAN)


def test_a_step_is_that_of_langevin_at_the_level_it_goes_to(x64):
    sampler = Langevin(num_langevin_steps=3, step_size=0.3)
    assert sampler.num_noises == sampler.num_evals == 3
    x, noise, sigma = np.full(1, 2.0), np.array([[0.5], [-1.0], [0.2]]), 0.8
    h = 0.3 * sigma**2
    expected = x
    for z in noise:
        expected = expected - h * (expected - MEAN) / (VARIANCE + sigma**2) + np.sqrt(2 * h) * z
    np.testing.assert_allclose(sampler.step(wiener, x, 1.1, sigma, noise), expected, rtol=1e-12)


@pytest.mark.parametrize("sigma_min, sigma_max, wide", [(0.01, 10.0, 1.05), (0.02, 500.0, 1.10)])
def test_draws_are_as_wide_as_documented(x64, sigma_min, sigma_max, wide):
    sampler, process = Langevin(), ns.VarianceExploding(sigma_min, sigma_max)
    levels = sampler.spacing(process, sigma_min, sampler.num_steps + 1)

    @jax.jit
    def slopes(sigma, sigma_next):
        def affine(x, noise):
            return sampler.step(wiener, x, sigma, sigma_next, noise)

        start = jnp.zeros(1), jnp.zeros((sampler.num_noises, 1))
        return [jnp.sum(slope**2) for slope in jax.jacfwd(affine, (0, 1))(*start)]

    variance = VARIANCE + sigma_max**2
    for slope, noise in map(slopes, levels[:-1], levels[1:]):
        variance = slope * variance + noise
    np.testing.assert_allclose(np.sqrt(variance / (VARIANCE + sigma_min**2)), wide, atol=0.005)


def test_draws_of_a_prior_are_near_its_mean():
    process = ns.VarianceExploding(0.01, 10.0)
    prior = ns.DiffusionPrior(wiener, process, 1, sampler=Langevin(num_steps=50))
    x = np.asarray(jax.jit(lambda key: prior.sample(key, (400,)))(jax.random.key(0)))
    np.testing.assert_allclose(x.mean(), MEAN, atol=5 * x.std() / 20)
    assert 0.4 < x.std() < 0.7


@pytest.mark.parametrize(
    "options, message",
    [
        ({"step_size": 2.0}, "step_size must be below 2, where the steps become unstable, got 2.0"),
        ({"step_size": 0.0}, "step_size must be a finite positive number"),
        ({"num_langevin_steps": 0}, "num_langevin_steps must be a positive integer, got 0"),
    ],
)
def test_bad_steps_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        Langevin(**options)
