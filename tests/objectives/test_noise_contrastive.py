# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Noise-contrastive estimation and energy discrepancy: where their minima are, by quadrature.

The expectation over data and noise is a sum over nodes: a loss of one point and fixed noise,
mapped over all of them. The data are N(0.3, 0.8^2), and the energies vary in four directions.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax import random

import numpyro_scores as ns
from numpyro_scores.objectives import (
    ConditionalNoiseContrastiveEstimation,
    EnergyDiscrepancy,
    ImplicitScoreMatching,
    NoiseContrastiveEstimation,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
MEAN, SCALE = 0.3, 0.8
LOG_NORMALIZER = np.log(SCALE * np.sqrt(2 * np.pi))
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
DIRECTIONS = 4


def energy_of(theta):
    """At zero the energy of the data, normalised."""

    def energy(x):
        directions = jnp.stack([x[0] ** 2, x[0], jnp.sin(2 * x[0]), jnp.ones(())])
        return ((x[0] - MEAN) / SCALE) ** 2 / 2 + LOG_NORMALIZER + theta @ directions

    return energy


def minimum(loss, num_directions=DIRECTIONS):
    """Gradient and Hessian of a loss at the truth, in the first directions."""

    def of_some(theta):
        return loss(jnp.concatenate([theta, jnp.zeros(DIRECTIONS - num_directions)]))

    zero = jnp.zeros(num_directions)
    return jax.jit(lambda: (jax.grad(of_some)(zero), jax.hessian(of_some)(zero)))()


def assert_minimum_at_the_truth(loss, num_directions=DIRECTIONS):
    gradient, hessian = minimum(loss, num_directions)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert np.linalg.eigvalsh(hessian).min() > 1e-4


@dataclass
class FixedNoise:
    """N(0, 1.5^2), whose draws are all one given point."""

    point: Any = field(default_factory=lambda: jnp.zeros(1))

    def sample(self, key, sample_shape):
        return jnp.broadcast_to(self.point, (*sample_shape, 1))

    def log_prob(self, x):
        return -((x[..., 0] / 1.5) ** 2) / 2 - jnp.log(1.5 * jnp.sqrt(2 * jnp.pi))


def contrastive_loss(theta, num_noise=3):
    def one(x, y):
        objective = NoiseContrastiveEstimation(FixedNoise(1.5 * y[None]), num_noise)
        return objective(energy_of(theta), MEAN + SCALE * x[None, None], key=KEY)

    losses = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(NODES, NODES)
    return WEIGHTS @ losses @ WEIGHTS


def test_noise_contrastive_estimation_finds_the_density_and_its_normaliser(x64):
    assert_minimum_at_the_truth(contrastive_loss)


def test_a_distribution_brings_the_normaliser_that_is_learned(x64):
    x, noise = MEAN + SCALE * NODES[:, None], dist.Normal(0, 1.5).expand([1]).to_event()
    objective = NoiseContrastiveEstimation(noise)
    energy = energy_of(jnp.zeros(DIRECTIONS))
    constant = jnp.array(0.7)
    d = ns.EnergyDistribution(energy, 1, log_normalizer=constant)
    loss, gradient = jax.jit(jax.value_and_grad(lambda d: objective(d, x, key=KEY)))(d)
    expected = jax.jit(lambda: objective(lambda x: energy(x) + constant, x, key=KEY))()
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    assert abs(gradient.log_normalizer) > 0.1
    with pytest.raises(ValueError, match=r"give it log_normalizer=jnp.zeros\(\(\)\)"):
        objective(ns.EnergyDistribution(energy, 1), x, key=KEY)


def test_noise_that_is_the_data_cannot_be_told_from_it(x64):
    noise = dist.Normal(0, 1.5).expand([2]).to_event()
    objective = NoiseContrastiveEstimation(noise, 3)
    loss = jax.jit(lambda x: objective(lambda x: -noise.log_prob(x), x, key=KEY))(np.ones((4, 2)))
    np.testing.assert_allclose(loss, 4 * np.log(4) - 3 * np.log(3), rtol=1e-12)


@pytest.mark.slow
def test_fit_returns_a_normalised_distribution():
    covariance = np.array([[1.0, 0.6], [0.6, 0.8]])
    data = random.multivariate_normal(random.key(1), jnp.zeros(2), covariance, (4_000,))
    noise = dist.Normal(0, 1.2).expand([2]).to_event()
    start = ns.EnergyDistribution(
        jax.tree_util.Partial(lambda P, x: x @ P @ x / 2, jnp.eye(2)),
        2,
        log_normalizer=jnp.zeros(()),
    )
    fitted = ns.fit(
        start,
        NoiseContrastiveEstimation(noise),
        data,
        key=KEY,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.03, 1_000)),
        num_steps=1_000,
        progress_bar=False,
    ).module
    moments = np.asarray(data.T @ data / len(data))
    exact = dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=moments)
    grid = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    np.testing.assert_allclose(fitted.log_prob(grid), exact.log_prob(grid), atol=0.12)


@pytest.mark.slow
def test_a_machine_learns_its_normaliser():
    rng = np.random.default_rng(0)
    weights, visible, hidden = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)
    x = jnp.array(list(itertools.product((0.0, 1.0), repeat=4)))
    truth = jax.nn.softmax(ns.BernoulliRBM(weights, visible, hidden).log_prob(x))
    data = x[random.choice(KEY, 16, (10_000,), p=truth)]
    noise = dist.Bernoulli(probs=data.mean(0)).to_event(1)
    fitted = ns.fit(
        ns.BernoulliRBM(0.1 * weights, visible, hidden, log_normalizer=jnp.zeros(())),
        NoiseContrastiveEstimation(noise),
        data,
        key=random.key(1),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.03, 3_000)),
        num_steps=3_000,
        progress_bar=False,
    ).module
    # Normalised and close to the frequencies, of which the rarest has a standard error of 10%.
    np.testing.assert_allclose(jax.nn.logsumexp(fitted.log_prob(x)), 0, atol=0.05)
    frequencies = jnp.mean(jnp.all(data[:, None] == x, -1), 0)
    np.testing.assert_allclose(jnp.exp(fitted.log_prob(x)), frequencies, atol=0.02)


def conditional_loss(theta, noise_scale, monkeypatch):
    def one(x, z):
        monkeypatch.setattr(random, "normal", lambda key, shape, dtype: jnp.full(shape, z))
        objective = ConditionalNoiseContrastiveEstimation(noise_scale, 1)
        return objective(energy_of(theta), MEAN + SCALE * x[None, None], key=KEY)

    losses = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(NODES, NODES)
    return WEIGHTS @ losses @ WEIGHTS


@pytest.mark.parametrize("noise_scale", [0.2, 1.0])
def test_conditional_noise_contrastive_estimation_finds_the_density(x64, monkeypatch, noise_scale):
    def loss(theta):
        return conditional_loss(theta, noise_scale, monkeypatch)

    assert_minimum_at_the_truth(loss, DIRECTIONS - 1)


def test_with_little_noise_it_is_implicit_score_matching(x64, monkeypatch):
    theta = jnp.array([0.4, -0.3, 0.2, 1.0])
    x = MEAN + SCALE * NODES[:, None]
    implicit = jax.jit(jax.vmap(lambda x: ImplicitScoreMatching()(energy_of(theta), x[None])))
    exact = WEIGHTS @ implicit(x)

    @jax.jit
    def error(scale):
        loss = conditional_loss(theta, scale, monkeypatch)
        return (loss - 2 * np.log(2)) * 2 / scale**2 - exact

    large, small = error(0.04), error(0.02)
    assert abs(small) < 0.01 * abs(exact)
    np.testing.assert_allclose(large / small, 4, rtol=0.05)


def discrepancy_loss(theta, stabilizer, monkeypatch):
    """With one negative sample."""

    def one(x, z, z_back):
        draws = iter([z, z_back])
        monkeypatch.setattr(
            random, "normal", lambda key, shape, dtype: jnp.full(shape, next(draws))
        )
        objective = EnergyDiscrepancy(0.7, 1, stabilizer)
        return objective(energy_of(theta), MEAN + SCALE * x[None, None], key=KEY)

    over_back = jax.vmap(one, (None, None, 0))
    over_both = jax.vmap(over_back, (None, 0, None))
    losses = jax.vmap(over_both, (0, None, None))(NODES, NODES, NODES)
    return jnp.einsum("xyz,x,y,z->", losses, WEIGHTS, WEIGHTS, WEIGHTS)


def test_energy_discrepancy_with_one_negative_sample_finds_the_density(x64, monkeypatch):
    assert_minimum_at_the_truth(lambda theta: discrepancy_loss(theta, 1.0, monkeypatch), 3)


def test_another_stabilizer_biases_the_precision_as_the_docstring_says(x64, monkeypatch):
    def slope(stabilizer):
        gradient, hessian = minimum(lambda t: discrepancy_loss(t, stabilizer, monkeypatch), 1)
        return gradient[0], hessian[0, 0]

    # The slope in the precision at the truth: negative where the minimum has a larger one.
    assert slope(0.5)[0] < -1e-3 and slope(2.0)[0] > 1e-3
    gradient, hessian = slope(0.0)
    assert gradient < 0 and abs(hessian) < 1e-9


@pytest.mark.parametrize("stabilizer", [0.0, 1.0])
def test_with_many_negative_samples_it_is_the_closed_form_of_a_gaussian(stabilizer):
    precision, variance, t, n = 1.7, 0.64, 0.5, 6_000
    objective = EnergyDiscrepancy(t**0.5, 200, stabilizer)
    x = 0.8 * random.normal(random.key(1), (n, 1))
    loss = jax.jit(lambda x: objective(lambda x: precision * x[0] ** 2 / 2, x, key=KEY))(x)
    gain = 1 + t * precision
    expected = precision * variance / 2 - precision * (variance + t) / gain / 2 - np.log(gain) / 2
    # A loss of one point has a standard deviation below 0.6; 1 / 200 is the bias in m.
    np.testing.assert_allclose(loss, expected, atol=4 * 0.6 / n**0.5 + 1 / 200)


@dataclass
class WithoutEvents(FixedNoise):
    def log_prob(self, x):
        return -(x**2) / 2


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: NoiseContrastiveEstimation(jnp.zeros_like), TypeError, "noise must have sample"),
        (lambda: NoiseContrastiveEstimation(FixedNoise(), 0), ValueError, "num_noise must be a"),
        (
            lambda: NoiseContrastiveEstimation(FixedNoise())(jnp.sum, np.ones((3, 2)), key=KEY),
            ValueError,
            r"noise must be over points of shape \(2,\): 30 draws came with the shape \(30, 1\)",
        ),
        (
            lambda: NoiseContrastiveEstimation(WithoutEvents())(jnp.sum, np.ones((3, 1)), key=KEY),
            ValueError,
            r"log_prob of shape \(30, 1\), not \(30,\)",
        ),
        (
            lambda: ConditionalNoiseContrastiveEstimation(0.0),
            ValueError,
            "noise_scale must be a finite positive",
        ),
        (
            lambda: ConditionalNoiseContrastiveEstimation(1.0, 0),
            ValueError,
            "num_noise must be a positive integer",
        ),
        (lambda: EnergyDiscrepancy(-1.0), ValueError, "noise_scale must be a finite positive"),
        (lambda: EnergyDiscrepancy(1.0, 0), ValueError, "num_negatives must be a positive"),
        (
            lambda: EnergyDiscrepancy(1.0, stabilizer=-1.0),
            ValueError,
            "stabilizer must be finite and >= 0, got -1.0",
        ),
    ],
)
def test_a_bad_argument_is_told(make, error, message):
    with pytest.raises(error, match=message):
        make()
