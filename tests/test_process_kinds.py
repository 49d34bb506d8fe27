# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Processes that shrink the data: their marginals, times and denoisers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats
from scipy.integrate import solve_ivp

import numpyro_scores as ns
from numpyro_scores.processes import (
    DDPM,
    EpsilonPrediction,
    ScorePrediction,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

BETA_MIN, BETA_MAX = 0.3, 12.0
VP = VariancePreserving(BETA_MIN, BETA_MAX)
SUB_VP = SubVariancePreserving(BETA_MIN, BETA_MAX, t_min=1e-3)
PROCESSES = [VP, SUB_VP, DDPM(), DDPM(50, 1e-3, 0.3), VarianceExploding(0.02, 10.0)]
EACH = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)


def rate(t):
    return BETA_MIN + t * (BETA_MAX - BETA_MIN)


def integral(t):
    return np.polyval(np.polyint([BETA_MAX - BETA_MIN, BETA_MIN]), t)


DIFFUSIONS = {VP: rate, SUB_VP: lambda t: rate(t) * (1 - np.exp(-2 * integral(t)))}


@pytest.mark.parametrize("process", DIFFUSIONS, ids=lambda process: type(process).__name__)
def test_the_forward_marginals_are_those_of_the_differential_equation(x64, process):
    # Of dx = -rate x / 2 dt + sqrt(g^2) dw: mean' = -rate mean / 2, var' = -rate var + g^2.
    def slopes(t, moments):
        mean, variance = moments
        return [-rate(t) * mean / 2, -rate(t) * variance + DIFFUSIONS[process](t)]

    times = np.linspace(0.01, 1, 12)
    mean, variance = solve_ivp(
        slopes, (0, 1), [1.0, 0.0], "DOP853", times, rtol=1e-10, atol=1e-14
    ).y
    scale, sigma = process.scale(times), process.noise_level(times)
    np.testing.assert_allclose(scale, mean, rtol=1e-8)
    np.testing.assert_allclose((scale * sigma) ** 2, variance, rtol=1e-7)


def test_processes_start_where_single_precision_leaves_something_of_the_score():
    for process in VariancePreserving(), SubVariancePreserving():
        assert 0.01 < process.sigma_min < 0.02


def test_the_variance_of_unit_data_is_preserved_or_smaller(x64):
    t = np.linspace(0.001, 1, 50)
    np.testing.assert_allclose(VP.scale(t) ** 2 * (1 + VP.noise_level(t) ** 2), 1, rtol=1e-12)
    assert np.all(SUB_VP.scale(t) ** 2 * (1 + SUB_VP.noise_level(t) ** 2) < 1)


def test_the_chain_of_ddpm_is_simulated_step_by_step(x64):
    # Mean and variance of x_k given x_0 = 1, by the moments of each step.
    mean, variance, means, variances = 1.0, 0.0, [], []
    for beta in np.linspace(1e-4, 2e-2, 1000):
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        means.append(mean)
        variances.append(variance)
    process = DDPM()
    t = np.arange(1000) / 999
    np.testing.assert_allclose(process.scale(t), means, rtol=1e-10)
    np.testing.assert_allclose(
        (process.scale(t) * process.noise_level(t)) ** 2, variances, rtol=1e-9
    )
    np.testing.assert_allclose(process.noise_levels(1000)[::-1], process.noise_level(t), rtol=1e-10)
    np.testing.assert_allclose(process.step(process.noise_level(t)), np.arange(1000), atol=1e-8)


@EACH
def test_the_time_of_a_noise_level_is_the_inverse(x64, process):
    sigma = np.geomspace(process.sigma_min, process.sigma_max, 20)
    back = jax.jit(lambda sigma: process.noise_level(process.time(sigma)))
    np.testing.assert_allclose(back(sigma), sigma, rtol=1e-9)


@EACH
def test_noise_levels_run_from_the_largest_to_the_smallest(process):
    levels = np.asarray(process.noise_levels(9))
    assert levels[0] == np.float32(process.sigma_max)
    assert levels[-1] == np.float32(process.sigma_min)
    times = np.linspace(1, process.time(process.sigma_min), 9)
    np.testing.assert_allclose(levels, process.noise_level(times), rtol=2e-4)
    drawn = np.asarray(process.sample_noise_level(random.key(0), (20_000,)))
    assert drawn.min() >= process.sigma_min * (1 - 1e-4)
    median = process.noise_level(np.float32(0.5))  # four standard errors of a median
    assert abs(np.mean(drawn < median) - 0.5) < 4 * 0.5 / np.sqrt(20_000)
    assert {process: 0}[eval(repr(process))] == 0


@EACH
@pytest.mark.parametrize("sigma", [0.1, 1.3, 6.0])
def test_a_network_of_the_score_in_its_own_coordinates_is_the_exact_denoiser(x64, process, sigma):
    variance, mean = 0.5, np.array([1.0, -2.0])

    def score(x_t, t):  # of s x_0 + s sigma z for data N(mean, variance)
        s, level = process.scale(t), process.noise_level(t)
        return -(x_t - s * mean) / (s**2 * (variance + level**2))

    x = np.array([1.3, -0.4])
    exact = mean + variance / (variance + sigma**2) * (x - mean)
    denoised = jax.jit(ScorePrediction(score, process))(x, sigma)
    np.testing.assert_allclose(denoised, exact, rtol=1e-7)


def test_a_network_of_the_steps_of_ddpm_is_a_denoiser(x64):
    process = DDPM()
    scales = process.scale(jnp.arange(1000) / 999)

    def noise(x_t, step):  # E[z | x_t] for data N(0, 1)
        return jnp.sqrt(1 - scales[jnp.round(step).astype(int)] ** 2) * x_t

    denoiser = EpsilonPrediction(noise, process.step)
    sigma = process.noise_level(300 / 999)
    np.testing.assert_allclose(denoiser(np.ones(3), sigma), 1 / (1 + sigma**2), rtol=1e-9)


@EACH
def test_each_process_is_trained_over_and_has_a_prior(process):
    def denoiser(x, sigma):
        return x / (1 + sigma**2)

    x = np.random.default_rng(0).normal(size=(20_000, 1)).astype(np.float32)
    objective = ns.objectives.DenoisingScoreMatching(process)
    loss = jax.jit(partial(objective, denoiser, key=random.key(1)))(x)
    # The error of the best denoiser, sigma^2 / (1 + sigma^2), times its weight is 1.
    np.testing.assert_allclose(loss, 1, atol=5 * np.sqrt(2 / 20_000))
    prior = ns.DiffusionPrior(denoiser, process, 1)
    exact = stats.norm.logpdf(0.7, 0, np.hypot(1, process.sigma_min))
    np.testing.assert_allclose(prior.log_prob(np.full(1, 0.7)), exact, atol=0.01)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: VariancePreserving(0.0, 20.0), "beta_min must be a finite positive number, got 0"),
        (lambda: SubVariancePreserving(2.0, 1.0), "beta_min must be at most beta_max, got 2.0 and"),
        (lambda: VariancePreserving(t_min=1.0), "t_min must be below 1"),
        (lambda: DDPM(1), "num_steps >= 2"),
        (lambda: DDPM(beta_max=1.0), "beta_max < 1"),
        (lambda: VP.noise_levels(1), "num_levels must be at least 2"),
    ],
)
def test_bad_rates_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()
