# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Denoising score matching."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from objectives.four_points import DIRECTIONS, PROCESS, expectation, log_density

from numpyro_scores.objectives import (
    DenoisingScoreMatching,
    KarrasWeight,
    LikelihoodWeight,
    ScoreWeight,
)
from numpyro_scores.processes import (
    EpsilonPrediction,
    VPrediction,
    X0Prediction,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
WEIGHTS = pytest.mark.parametrize("weight", [None, KarrasWeight(0.5), ScoreWeight()])


def tweedie(x, sigma):
    return x + sigma**2 * jax.grad(log_density)(x, sigma)


def gradient_and_hessian(loss, x):
    """In one program."""
    slope = jax.grad(loss)
    hessian, gradient = jax.jit(jax.jacfwd(lambda x: (slope(x),) * 2, has_aux=True))(x)
    return gradient, hessian


@WEIGHTS
def test_tweedies_denoiser_is_the_minimum_over_a_process(x64, monkeypatch, weight):
    objective = DenoisingScoreMatching(PROCESS, weight)

    def loss(epsilon):
        def denoiser(x, sigma):
            return tweedie(x, sigma) + sum(
                e * g(x, sigma) for e, g in zip(epsilon, DIRECTIONS, strict=True)
            )

        return expectation(lambda x: objective(denoiser, x, key=KEY), monkeypatch)

    gradient, hessian = gradient_and_hessian(loss, np.zeros(len(DIRECTIONS)))
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    assert np.linalg.eigvalsh(hessian).min() > 1e-3


def test_the_score_of_the_smoothed_data_is_the_minimum_at_one_level(x64, monkeypatch):
    sigma = 0.6
    objective = DenoisingScoreMatching(sigma)

    def loss(epsilon):
        def energy(x):
            directions = jnp.stack([x[0], x[0] ** 2, jnp.cos(3 * x[0])])
            return -log_density(x, sigma) + epsilon @ directions

        return expectation(lambda x: objective(energy, x, key=KEY), monkeypatch)

    gradient, hessian = gradient_and_hessian(loss, np.zeros(3))
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    assert np.linalg.eigvalsh(hessian).min() > 1e-3


def test_the_two_forms_are_one_loss(x64):
    # With D = x + sigma^2 s, half of sigma^-2 |D - x0|^2 is the loss of the score.
    @dataclass(frozen=True)
    class OneLevel:
        def noise_level(self, t):
            return jnp.full_like(t, 0.6)

    x = np.random.default_rng(0).normal(size=(6, 2, 2))
    process = DenoisingScoreMatching(OneLevel(), ScoreWeight())

    @jax.jit
    def losses(x):
        level = DenoisingScoreMatching(0.6)(lambda x: -jnp.sin(x), x, key=KEY)
        return level, process(lambda x, sigma: x - sigma**2 * jnp.sin(x), x, key=KEY)

    level, denoised = losses(x)
    np.testing.assert_allclose(level, denoised * 4 / 2, rtol=1e-12)


def test_the_noise_of_both_forms_is_standard_normal():
    process = DenoisingScoreMatching(PROCESS, ScoreWeight())

    @jax.jit
    def losses(x):
        # The loss of a zero score is |z|^2 / 2, that of a zero denoiser at clean zero is 0.
        level = DenoisingScoreMatching(0.3)(jnp.zeros_like, x, key=KEY)
        return level, process(lambda x, sigma: x, x, key=KEY)

    np.testing.assert_allclose(losses(np.zeros((50_000, 2), np.float32)), 1.0, atol=0.03)


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0))
def mean_time(num_points, key):
    """The mean of the times of one batch, through a weight that is the time."""
    objective = DenoisingScoreMatching(
        PROCESS, weight=lambda sigma: jnp.log(sigma / 0.5) / jnp.log(10.0)
    )
    return objective(lambda x, sigma: jnp.ones_like(x), jnp.zeros((num_points, 1)), key=key)


def test_times_are_stratified_over_the_batch_and_uniform_over_keys(x64):
    keys = random.split(KEY, 4_000)
    means = mean_time(10, keys)
    # Independent times would leave 0.5 by 0.09; those of a shifted grid, by at most half a cell.
    assert np.abs(means - 0.5).max() <= 0.05 + 1e-9
    np.testing.assert_allclose(means.mean(), 0.5, atol=0.003)
    one = np.sort(mean_time(1, keys))
    np.testing.assert_allclose(one, (np.arange(4_000) + 0.5) / 4_000, atol=0.04)


def test_karras_weight_is_the_product_of_the_paper(x64):
    sigma = np.geomspace(0.002, 80, 5)
    expected = (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2
    np.testing.assert_allclose(KarrasWeight(0.5)(sigma), expected, rtol=1e-13)


class Preconditioned:
    """A zero denoiser that knows its data."""

    def __init__(self, sigma_data):
        self.sigma_data = sigma_data

    def __call__(self, x, sigma):
        return jnp.zeros_like(x)


def test_the_weight_has_the_sigma_data_of_the_denoiser(x64):
    x = np.random.default_rng(0).normal(size=(8, 2))

    def loss(denoiser, weight=None):
        return DenoisingScoreMatching(PROCESS, weight)(denoiser, x, key=KEY)

    denoiser, bare = Preconditioned(0.5), lambda x, sigma: jnp.zeros_like(x)
    expected = loss(bare, KarrasWeight(0.5))
    assert loss(denoiser) == loss(denoiser, KarrasWeight(0.5)) == expected
    assert loss(bare) == loss(bare, KarrasWeight(1.0)) != expected
    with pytest.raises(ValueError, match=r"sigma_data=0.5, but its KarrasWeight has 1.0"):
        loss(denoiser, KarrasWeight(1.0))


def test_a_sigma_data_that_is_trained_feels_nothing_of_the_weight(x64):
    objective, x = DenoisingScoreMatching(PROCESS), np.ones((3, 2))
    slope = jax.jit(jax.grad(lambda s: objective(Preconditioned(s), x, key=KEY)))(0.5)
    assert slope == 0


@dataclass(frozen=True)
class Quadratic:
    """The noise levels of `PROCESS`, in another course."""

    def noise_level(self, t):
        return 0.5 + 4.5 * t**2


def divergence(A, B):
    """KL(N(0, A) || N(0, B))."""
    log_ratio = np.linalg.slogdet(B)[1] - np.linalg.slogdet(A)[1]
    return (np.trace(np.linalg.solve(B, A)) - len(A) + log_ratio) / 2


@pytest.mark.parametrize("process", [PROCESS, Quadratic()])
def test_the_likelihood_weight_measures_the_divergence_of_gaussians_in_nats(
    x64, monkeypatch, process
):
    data, model = np.array([[1.0, 0.6], [0.6, 2.0]]), np.array([[3.0, -0.5], [-0.5, 0.8]])
    objective = DenoisingScoreMatching(process, LikelihoodWeight())
    # Clean points and noise with the second moments of N(0, C) and N(0, I), and nodes of time.
    joint = np.zeros((4, 4))
    joint[:2, :2], joint[2:, 2:] = np.linalg.cholesky(data), np.eye(2)
    points = np.concatenate([2 * joint.T, -2 * joint.T])
    u, weight_u = np.polynomial.legendre.leggauss(40)

    @jax.jit
    def loss(covariance):
        def denoiser(x, sigma):
            return covariance @ jnp.linalg.solve(covariance + sigma**2 * jnp.eye(2), x)

        def one(point, u):
            monkeypatch.setattr(random, "normal", lambda key, shape, dtype: point[None, 2:])
            monkeypatch.setattr(random, "uniform", lambda key: u)
            return objective(denoiser, point[None, :2], key=KEY)

        losses = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.array(points), (1 + u) / 2)
        return jnp.mean(losses, 0) @ weight_u / 2

    least, most = 0.5**2 * np.eye(2), 5.0**2 * np.eye(2)
    expected = divergence(data + least, model + least) - divergence(data + most, model + most)
    np.testing.assert_allclose(2 * (loss(model) - loss(data)), expected, rtol=1e-6)


def test_predictions_have_the_losses_of_their_papers(x64):
    def network(x_t, c):
        return jnp.sin(x_t) * c

    x0 = np.random.default_rng(0).normal(size=(6, 2))
    key_level, key_noise = random.split(KEY)
    z = random.normal(key_noise, x0.shape)
    sigma = PROCESS.noise_level((random.uniform(key_level) + np.arange(6) / 6) % 1)[:, None]
    alpha, std = 1 / np.sqrt(1 + sigma**2), sigma / np.sqrt(1 + sigma**2)
    output = network(alpha * x0 + std * z, np.log(sigma) / 4)
    for prediction, weight, target in [
        (EpsilonPrediction, ScoreWeight(), z),
        (VPrediction, None, alpha * z - std * x0),
        (X0Prediction, lambda sigma: 1.0, x0),
    ]:
        objective = DenoisingScoreMatching(PROCESS, weight)
        loss = jax.jit(partial(objective, prediction(network), key=KEY))(x0)
        np.testing.assert_allclose(loss, np.mean((output - target) ** 2), rtol=1e-10)


def losses_at_one_level(sigma, control_variate, num_keys=4_000):
    objective = DenoisingScoreMatching(sigma, control_variate=control_variate)
    x = jnp.array([[0.4, -1.0], [1.3, 0.2]])

    def energy(scale, x):
        return scale * (jnp.sum(x**4) / 4 + x[0] * x[1])

    def loss_and_slope(key):
        return jax.value_and_grad(lambda a: objective(lambda x: energy(a, x), x, key=key))(1.3)

    keys = random.split(KEY, num_keys)
    # Without what does not depend on the energy, in the units of the loss of the score.
    losses = jnp.stack(jax.jit(jax.vmap(loss_and_slope))(keys), axis=1) - jnp.array([1.0, 0.0])
    return np.asarray(losses) / sigma**2


def test_the_control_variate_leaves_the_expectation_and_bounds_the_variance(x64):
    plain, better = losses_at_one_level(0.05, False), losses_at_one_level(0.05, True)
    difference = plain - better
    errors = difference.std(0) / len(difference) ** 0.5
    assert np.all(np.abs(difference.mean(0)) < 4.5 * errors)
    # The loss and its slope in a parameter alike.
    assert np.all(better.std(0) < plain.std(0) / np.array([40, 5]))
    smaller = losses_at_one_level(0.0005, True)
    np.testing.assert_allclose(smaller.std(0), better.std(0), rtol=0.1)
    assert np.all(losses_at_one_level(0.0005, False).std(0) > 50 * plain.std(0))


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_noise_level_is_told(noise):
    with pytest.raises(ValueError, match="noise must be a finite positive number"):
        DenoisingScoreMatching(noise)


def test_other_bad_arguments_are_told():
    with pytest.raises(TypeError, match="noise level .* or a process"):
        DenoisingScoreMatching("large")
    with pytest.raises(ValueError, match="leave weight out"):
        DenoisingScoreMatching(0.3, weight=ScoreWeight())
    with pytest.raises(ValueError, match="leave control_variate out"):
        DenoisingScoreMatching(PROCESS, control_variate=True)
    with pytest.raises(ValueError, match="sigma_data must be a finite positive number"):
        KarrasWeight(0.0)
