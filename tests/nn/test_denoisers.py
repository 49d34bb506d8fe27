# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Denoisers."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax import random

from numpyro_scores.nn import MLPDenoiser
from numpyro_scores.nn.denoisers import fourier_features
from numpyro_scores.objectives import DenoisingScoreMatching
from numpyro_scores.processes import VarianceExploding
from numpyro_scores.training import fit

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = np.random.default_rng(0).normal(size=(2, 3))


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_before_training_it_is_the_best_linear_denoiser(x64, sigma):
    module = MLPDenoiser((2, 3), rngs=nnx.Rngs(0), hidden_features=8, sigma_data=0.5)
    np.testing.assert_allclose(jax.jit(module)(X, sigma), X * 0.25 / (0.25 + sigma**2), rtol=1e-6)
    assert module.sigma_data == 0.5


def test_fourier_features_tell_noise_levels_apart(x64):
    c_noise = np.log(np.geomspace(1e-3, 1e3, 200)) / 4
    features = np.asarray(jax.jit(jax.vmap(fourier_features))(c_noise))
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
    # Neighbours differ by 7 percent in the noise level; far levels are never as near as these.
    neighbours = np.diag(distance, 1)
    assert neighbours.min() > 0.2
    far = np.abs(np.subtract.outer(c_noise, c_noise)) > 0.25
    assert distance[far].min() > 3 * neighbours.max()
    np.testing.assert_allclose(np.sum(features**2, axis=-1), 16, rtol=1e-12)


def test_it_learns_the_denoiser_of_a_gaussian():
    # Data N(m, C): the denoiser is x + sigma^2 (C + sigma^2 I)^-1 (m - x). Before training the
    # relative error is 0.7.
    mean, root = np.array([1.0, -0.5]), np.array([[0.8, 0.0], [0.5, 0.2]])
    data = np.random.default_rng(0).normal(size=(4_000, 2)) @ root.T + mean
    module = MLPDenoiser((2,), rngs=nnx.Rngs(0), hidden_features=32, num_layers=1)
    objective = DenoisingScoreMatching(VarianceExploding(0.05, 5.0))
    options = {"num_steps": 1_000, "ema_decay": 0.99, "progress_bar": False}
    fitted = fit(module, objective, data, key=random.key(0), **options).module

    def error(denoiser):
        rng, errors = np.random.default_rng(1), []
        denoised = jax.jit(jax.vmap(denoiser, (0, None)))
        for sigma in (0.1, 0.5, 2.0):
            x = data[:500] + sigma * rng.normal(size=(500, 2))
            gain = np.linalg.inv(root @ root.T + sigma**2 * np.eye(2))
            exact = x + sigma**2 * (mean - x) @ gain
            errors.append(np.mean((denoised(x, sigma) - exact) ** 2) / np.mean((exact - x) ** 2))
        return np.sqrt(np.mean(errors))

    assert error(fitted) < 0.1 < 0.3 < error(module)
