# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Diffusion priors on a mixture in one dimension, where everything is known."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from distributions.mixture import (
    MEANS,
    PROCESS,
    STDS,
    WEIGHTS,
    X,
    cdf,
    denoiser,
    exact_values,
    log_density,
)
from jax import random
from numpyro.infer import Predictive
from scipy import stats

from numpyro_scores import (
    DiffusionPrior,
    Heun,
    Multistep,
    NoisePathIntegral,
    ProbabilityFlow,
    VarianceExploding,
)
from numpyro_scores._compile import _program

pytestmark = pytest.mark.usefixtures("quick_compilation")


def prior(**kwargs):
    return DiffusionPrior(denoiser, PROCESS, 1, **kwargs)


RULES = pytest.mark.parametrize("rule", [NoisePathIntegral(64), ProbabilityFlow(256)])
LEVELS = pytest.mark.parametrize("sigma", [0.02, 0.7, 20.0])


# The density.


@LEVELS
def test_the_score_is_that_of_the_smoothed_density(x64, sigma):
    # Tweedie's formula.
    _, expected, _ = exact_values(X, sigma)
    found = jax.jit(lambda x: (prior().at(sigma).score(x), prior().score(x, sigma)))(X)
    for score in found:
        np.testing.assert_allclose(score, expected, rtol=1e-9, atol=1e-12)


@RULES
@LEVELS
def test_the_log_density_is_that_of_the_smoothed_density(x64, rule, sigma):
    d = prior(log_density=rule).at(sigma)
    value, grad = jax.jit(jax.vmap(jax.value_and_grad(d.log_prob)))(X)
    np.testing.assert_allclose(value, exact_values(X, sigma)[0], atol=2e-3)
    np.testing.assert_array_equal(grad, jax.jit(d.score)(X))


@pytest.mark.parametrize("rule", [NoisePathIntegral(), ProbabilityFlow(128)])
@pytest.mark.parametrize("sigma", [0.02, 0.7])
def test_the_density_is_normalised(rule, sigma):
    grid = np.linspace(-8.0, 8.0, 4001, dtype=np.float32)
    log_prob = jax.jit(prior(log_density=rule).at(sigma).log_prob)(grid[:, None])
    np.testing.assert_allclose(np.trapezoid(np.exp(log_prob), grid), 1, atol=2e-3)


def test_the_log_density_changes_with_the_noise_level_as_it_should(x64):
    def found(sigma, x):
        return prior(log_density=NoisePathIntegral(64)).at(sigma).log_prob(x)

    grad = jax.jit(jax.vmap(jax.grad(found), (None, 0)))(0.7, X)
    expected = jax.jit(jax.vmap(jax.grad(log_density, argnums=1), (0, None)))(X, 0.7)
    np.testing.assert_allclose(grad, expected, atol=1e-3)


@pytest.mark.parametrize("rule", [NoisePathIntegral(8), ProbabilityFlow(8)])
def test_points_of_less_precision_than_the_noise_level_keep_it(x64, rule):
    d = DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), PROCESS, 1, log_density=rule)
    x = np.ones((1,), np.float32)
    value, grad = jax.jit(jax.value_and_grad(d.log_prob))(x)
    assert (value.dtype, grad.dtype, d.score(x).dtype) == (jnp.float32,) * 3
    np.testing.assert_allclose(grad, d.score(x.astype(np.float64)), rtol=1e-3)


# The noise level.


def test_the_density_is_that_of_the_smallest_level_unless_told_otherwise():
    d = prior()
    np.testing.assert_allclose(d.sigma, 0.02)
    np.testing.assert_allclose(prior(sigma=3).sigma, 3.0)
    np.testing.assert_allclose(d.at(3).sigma, 3.0)
    np.testing.assert_allclose(d.sigma, 0.02)


@pytest.mark.parametrize("sigma, clipped", [(1e-4, 0.02), (1e4, 500.0)])
def test_the_noise_level_is_clipped_to_the_process(sigma, clipped):
    np.testing.assert_allclose(prior().at(sigma).sigma, clipped)
    np.testing.assert_allclose(prior(sigma=sigma).sigma, clipped)
    np.testing.assert_allclose(jax.jit(lambda sigma: prior().at(sigma).sigma)(sigma), clipped)


def test_levels_share_one_compiled_function():
    @jax.jit
    def score(d, x):
        return d.score(x)

    d = prior()
    for level in (d, d.at(3), d.at(0.5), d.at(jnp.float32(7.0)), prior(sigma=2.0)):
        np.testing.assert_allclose(score(level, X), d.score(X, level.sigma), rtol=1e-4, atol=1e-3)
    assert score._cache_size() == 1


def test_levels_are_mapped(x64):
    sigmas = np.array([0.02, 0.7, 20.0])
    found = jax.jit(jax.vmap(lambda sigma: prior().at(sigma).log_prob(X)))(sigmas)
    expected = [exact_values(X, sigma)[0] for sigma in sigmas]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_denoised_value_is_the_posterior_mean(x64):
    expected = exact_values(X, 0.7)[2]

    @jax.jit
    def found(x):
        return prior().at(0.7).denoise(x), prior().denoise(x, 0.7), prior().denoise(x[None], 0.7)[0]

    for denoised in found(X):
        np.testing.assert_allclose(denoised, expected, rtol=1e-14)


# Draws.

NUM_DRAWS = 20_000  # a distribution function that is off by 0.019 is found


@jax.jit
def draws(d, key):
    return d.sample(key, (NUM_DRAWS,))[:, 0]


@LEVELS
def test_draws_have_the_smoothed_distribution(sigma):
    x = np.asarray(draws(prior().at(sigma), random.key(0)), np.float64)
    assert stats.kstest(x, cdf(sigma)).pvalue > 1e-6
    # Within five standard errors.
    mean = WEIGHTS @ MEANS
    variance = WEIGHTS @ (MEANS**2 + STDS**2 + sigma**2) - mean**2
    np.testing.assert_allclose(x.mean(), mean, atol=5 * np.sqrt(variance / NUM_DRAWS))
    squares = (x - mean) ** 2
    np.testing.assert_allclose(squares.mean(), variance, atol=5 * squares.std() / NUM_DRAWS**0.5)


def test_draws_at_the_largest_level_are_gaussian():
    x = draws(prior().at(PROCESS.sigma_max), random.key(0))
    gaussian = stats.norm(WEIGHTS @ MEANS, PROCESS.sigma_max)
    assert stats.kstest(np.asarray(x, np.float64), gaussian.cdf).pvalue > 1e-6
    # Whether the level is known when tracing or not, and with no steps back where it is.
    known = prior().at(1e9)
    np.testing.assert_allclose(known.sample(random.key(0), (NUM_DRAWS,))[:, 0], x, rtol=1e-5)
    assert "scan" not in str(jax.make_jaxpr(known.sample)(random.key(0)))


@pytest.mark.parametrize("sigma_to", [0.02, 1.0])
def test_draws_of_a_gaussian_have_the_documented_variance(x64, sigma_to):
    variance, sigma_max = 4.0, 10.0

    def draws(mean, sigma):
        def wiener(x, sigma):
            return mean + variance / (variance + sigma**2) * (x - mean)

        process = VarianceExploding(0.02, sigma_max)
        d = DiffusionPrior(wiener, process, 2, sampler=Multistep(num_steps=400))
        return d.at(sigma).sample(random.key(0), (5,))

    # Each draw comes from N(m, sigma_max^2) by the linear map of the probability flow.
    start = draws(0.0, sigma_max)
    scale = np.sqrt((variance + sigma_to**2) / (variance + sigma_max**2))
    np.testing.assert_allclose(draws(0.0, sigma_to), scale * start, rtol=1e-5)
    # Of the mean, two evaluations of the denoiser at sigma_max miss (C / sigma_max^2)^2.
    mean = np.array([1.0, -3.0])
    np.testing.assert_allclose(draws(mean, sigma_max), start + mean, atol=5e-3)
    np.testing.assert_allclose(draws(mean, sigma_to), scale * start + mean, atol=5e-3)


def test_draws_under_jit_are_those_without():
    d = prior().at(0.5)
    found = jax.jit(partial(d.sample, sample_shape=(4,)))(random.key(1))
    np.testing.assert_allclose(found, d.sample(random.key(1), (4,)), rtol=1e-4)
    assert not np.allclose(found, d.sample(random.key(2), (4,)))


def test_a_second_call_outside_of_jit_compiles_nothing():
    @dataclass(frozen=True)
    class Network:
        scale: Any
        squared: Any = True

        def __call__(self, x, sigma):
            if self.squared:  # a flag is known when tracing
                return self.scale * x / (1 + sigma**2)
            return jnp.zeros_like(x)

    jax.tree_util.register_dataclass(Network, ["scale", "squared"], [])

    def draw(*args):
        return DiffusionPrior(Network(*args), PROCESS, 1, sampler=Heun(3)).at(2.0)

    first = draw(jnp.ones(()))
    x = first.sample(random.key(0), (3,)), first.log_likelihood(X, flow=ProbabilityFlow(2)).nats
    for d, same in [(draw(jnp.ones(())), True), (draw(0.5 * jnp.ones(())), False)]:
        programs = _program.cache_info().misses
        found = d.sample(random.key(0), [3]), d.log_likelihood(X, flow=ProbabilityFlow(2)).nats
        assert _program.cache_info().misses == programs
        assert np.array_equal(found[0], x[0]) == np.array_equal(found[1], x[1]) == same
    zero = draw(jnp.ones(()), False)
    assert not np.array_equal(zero.sample(random.key(0), (3,)), x[0])


def test_a_model_with_the_prior_is_drawn_from():
    def model(d, y=None):
        with numpyro.plate("points", 5):
            x = numpyro.sample("x", d)
            numpyro.sample("y", dist.Normal(x[:, 0], 0.1), obs=y)

    drawn = Predictive(model, num_samples=400)(random.key(0), prior())
    x, noise = drawn["x"][..., 0], drawn["y"] - drawn["x"][..., 0]
    assert x.shape == (400, 5)
    # 2,000 draws each: a distribution function that is off by 0.06 is found.
    assert stats.kstest(np.ravel(x).astype(float), cdf(0.02)).pvalue > 1e-6
    assert stats.kstest(np.ravel(noise).astype(float), stats.norm(0, 0.1).cdf).pvalue > 1e-6
    again = Predictive(model, {"x": drawn["x"]})(random.key(1), prior())
    assert again["y"].shape == (400, 5)
