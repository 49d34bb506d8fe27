# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Noise processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import random
from scipy import stats

import numpyro_scores as ns
from numpyro_scores import schedules
from numpyro_scores.processes import (
    EpsilonPrediction,
    VarianceExploding,
    VPrediction,
    X0Prediction,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

PROCESS = VarianceExploding(sigma_min=0.02, sigma_max=10.0)


def test_the_noise_level_grows_geometrically_in_time(x64):
    t = np.linspace(0, 1, 11)
    levels = PROCESS.noise_level(t)
    np.testing.assert_allclose(levels[[0, -1]], [0.02, 10.0], rtol=1e-14)
    np.testing.assert_allclose(np.log(levels), np.log(0.02) + t * np.log(500), atol=1e-12)


def test_noise_levels_are_the_geometric_schedule_from_large_to_small():
    levels = PROCESS.noise_levels(7)
    np.testing.assert_allclose(levels, schedules.geometric(10.0, 0.02, 7), rtol=1e-5)
    assert (levels[0], levels[-1]) == (np.float32(10), np.float32(0.02))
    np.testing.assert_allclose(levels, PROCESS.noise_level(np.linspace(1, 0, 7)), rtol=1e-5)


def test_sampled_noise_levels_are_log_uniform():
    # With 10^5 draws a distribution function that is off by 0.01 is found.
    levels = np.asarray(PROCESS.sample_noise_level(random.key(0), (100_000,)), np.float64)
    uniform = stats.uniform(np.log(0.02), np.log(500))
    assert stats.kstest(np.log(levels), uniform.cdf).pvalue > 1e-6
    assert levels.min() >= 0.02 * (1 - 1e-6) and levels.max() <= 10 * (1 + 1e-6)
    assert PROCESS.sample_noise_level(random.key(0)).shape == ()


def test_a_process_is_a_static_argument_that_does_not_compile_again():
    traces = []

    def level(process, t):
        traces.append(process)
        return process.noise_level(t)

    compiled = jax.jit(level, static_argnums=0)
    for _ in range(2):
        compiled(VarianceExploding(0.02, 10.0), 0.5)
    assert len(traces) == 1


def test_processes_take_arrays_for_numbers():
    # As of `data.std()`; held as an array they could not be static.
    small, large = jnp.float32(0.25), jnp.float32(0.5)
    for process, same in [
        (VarianceExploding(small, large), VarianceExploding(0.25, 0.5)),
        (ns.VariancePreserving(small, large, small), ns.VariancePreserving(0.25, 0.5, 0.25)),
        (ns.DDPM(10, small, large), ns.DDPM(10, 0.25, 0.5)),
    ]:
        assert process == same and hash(process) == hash(same)
        np.testing.assert_array_equal(process.noise_levels(3), same.noise_levels(3))


@pytest.mark.parametrize(
    "sigma_min, sigma_max",
    [(10.0, 0.02), (1.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.1, np.inf), (np.nan, 1.0)],
)
def test_bad_noise_levels_are_told(sigma_min, sigma_max):
    with pytest.raises(ValueError, match=r"\(sigma_max, sigma_min\) must be finite, positive"):
        VarianceExploding(sigma_min, sigma_max)


COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])


def best_network(clean, noise):
    """
    E[clean x_0 + noise z | x_t] for data N(0, C) and x_t = alpha x_0 + beta z, where `clean` and
    `noise` are functions of alpha and beta: by the covariance of both with x_t.
    """

    def network(x_t, alpha):
        beta = jnp.sqrt(1 - alpha**2)
        cross = clean(alpha, beta) * alpha * COVARIANCE + noise(alpha, beta) * beta * jnp.eye(2)
        return cross @ jnp.linalg.solve(alpha**2 * COVARIANCE + beta**2 * jnp.eye(2), x_t)

    return network


def alpha_of(sigma):
    return 1 / jnp.sqrt(1 + sigma**2)


PREDICTIONS = {
    EpsilonPrediction: best_network(lambda alpha, beta: 0.0, lambda alpha, beta: 1.0),
    VPrediction: best_network(lambda alpha, beta: -beta, lambda alpha, beta: alpha),
    X0Prediction: best_network(lambda alpha, beta: 1.0, lambda alpha, beta: 0.0),
}


@pytest.mark.parametrize("sigma", [0.05, 1.3, 40.0])
def test_all_predictions_are_the_exact_denoiser_of_a_gaussian(x64, sigma):
    x = np.array([1.3, -0.4]) * np.hypot(1, sigma)
    exact = COVARIANCE @ np.linalg.solve(COVARIANCE + sigma**2 * np.eye(2), x)
    for prediction, network in PREDICTIONS.items():
        np.testing.assert_allclose(prediction(network, alpha_of)(x, sigma), exact, rtol=1e-9)


class Linear(nnx.Module):
    def __init__(self):
        self.weight = nnx.Param(jnp.eye(2))

    def __call__(self, x_t, c):
        return self.weight[...] @ x_t


def test_fit_trains_the_network_of_a_prediction():
    data = np.random.default_rng(0).normal(size=(100, 2))
    objective = ns.objectives.DenoisingScoreMatching(PROCESS)
    options = {"num_steps": 3, "batch_size": 16, "progress_bar": False}
    start = VPrediction(Linear())
    trained = ns.fit(start, objective, data, key=random.key(0), **options).module
    assert isinstance(trained, VPrediction) and isinstance(trained.network, Linear)
    assert not np.any(np.isclose(np.diag(trained.network.weight), 1, rtol=1e-6))
    np.testing.assert_array_equal(start.network.weight, np.eye(2))
    prior = ns.DiffusionPrior(trained, PROCESS, 2)
    np.testing.assert_allclose(prior.denoise(np.ones(2), 0.7), trained(np.ones(2), 0.7), rtol=1e-5)
