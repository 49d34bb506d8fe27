# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Dual score matching: the energy of every noise level, constant included."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from objectives.four_points import DIRECTIONS, POINTS, PROCESS, expectation, log_density
from scipy import stats

from numpyro_scores import DiffusionPrior, fit
from numpyro_scores.objectives import DenoisingScoreMatching, DualScoreMatching, KarrasWeight
from numpyro_scores.objectives._levels import stratified_times
from numpyro_scores.objectives._pairs import antithetic_noise
from numpyro_scores.processes import VarianceExploding

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)


def true_energy(x, sigma):
    """Of the four points, smoothed, with its constant."""
    return jnp.log(len(POINTS) * jnp.sqrt(2 * jnp.pi) * sigma) - log_density(x, sigma)


@pytest.mark.parametrize("time_weight, antithetic", [(None, True), (0.1, False)])
def test_the_energy_of_the_smoothed_data_is_the_minimum(x64, monkeypatch, time_weight, antithetic):
    objective = DualScoreMatching(
        PROCESS, KarrasWeight(2.0), time_weight=time_weight, antithetic=antithetic
    )
    # What varies with the point, with the level, and with both; a constant would not be seen.
    directions = [
        lambda x, sigma: jnp.log(sigma),
        lambda x, sigma: x[0] / sigma,
        *[lambda x, sigma, f=f: jnp.sum(f(x, sigma)) for f in DIRECTIONS[2:]],
    ]

    @jax.jit
    def loss(epsilon):
        def energy(x, sigma):
            varied = (e * g(x, sigma) for e, g in zip(epsilon, directions, strict=True))
            return true_energy(x, sigma) + sum(varied)

        return expectation(lambda x: objective(energy, x, key=KEY), monkeypatch)

    zero = np.zeros(len(directions))
    np.testing.assert_allclose(jax.grad(loss)(zero), 0, atol=1e-9)
    assert np.linalg.eigvalsh(jax.hessian(loss)(zero)).min() > 1e-3


def test_noises_of_a_pair_are_standard_normal_and_their_sums_nearly_constant():
    n, d = 64, 3
    keys = random.split(random.key(0), 200)
    x = jnp.zeros((n, d))
    z = np.asarray(jax.jit(jax.vmap(lambda key: antithetic_noise(key, x)))(keys))
    for one in (z[:, 0], z[:, 1]):  # each of 12,800
        one = one.reshape(-1, d)
        assert stats.kstest(np.sum(one**2, axis=1), stats.chi2(d).cdf).statistic < 0.015
        for entry in one.T:
            assert stats.kstest(entry, "norm").statistic < 0.015
    # Which point gets which lengths is random: those of the first point are of all sizes.
    assert stats.kstest(np.sum(z[:, 0, 0] ** 2, axis=1), stats.chi2(d).cdf).pvalue > 0.001
    squares = np.sum(z**2, axis=-1)
    assert np.std(squares[:, 0] + squares[:, 1]) < 0.6 * np.sqrt(2 * 2 * d)
    cosine = np.sum(z[:, 0] * z[:, 1], axis=-1) / np.sqrt(squares[:, 0] * squares[:, 1])
    np.testing.assert_allclose(cosine, -1, atol=1e-5)


def test_both_terms_are_of_unit_size_for_the_gaussian_of_the_data(x64):
    # E[1/d |s grad U - z|^2 lambda s^2] = 1, and of the other term (s_d^2 + 2 t) / (s_d^2 + t).
    d, s, sigma = 6, 2.0, 1.5

    @dataclass(frozen=True)
    class OneLevel:
        def noise_level(self, t):
            return jnp.full_like(t, sigma)

    def gaussian(x, sigma):
        variance = s**2 + sigma**2
        return jnp.sum(x**2) / (2 * variance) + d / 2 * jnp.log(2 * jnp.pi * variance)

    x = s * random.normal(random.key(1), (100_000, d))

    def loss(**kwargs):
        objective = DualScoreMatching(OneLevel(), KarrasWeight(s), antithetic=False, **kwargs)
        return objective(gaussian, x, key=KEY)

    of_space = loss(time_weight=1e-12)
    np.testing.assert_allclose(of_space, 1, rtol=0.01)
    of_noise = loss(time_weight=1.0) - of_space
    np.testing.assert_allclose(of_noise, (s**2 + 2 * sigma**2) / (s**2 + sigma**2), rtol=0.03)
    np.testing.assert_allclose(loss() - of_space, of_noise / d, rtol=1e-6)
    # The first term is the loss of the energy's denoiser.
    denoising = DenoisingScoreMatching(OneLevel(), KarrasWeight(s))(gaussian, x, key=KEY)
    np.testing.assert_allclose(of_space, denoising, rtol=1e-6)


@jax.tree_util.register_dataclass
@dataclass
class Gaussian:
    """`N(mean, e^(2 log_scale) + sigma^2)`, and what the level adds to its energy."""

    mean: Any
    log_scale: Any
    slope: Any

    def __call__(self, x, sigma):
        variance = jnp.exp(2 * self.log_scale) + sigma**2
        quadratic = jnp.sum((x - self.mean) ** 2 / variance) / 2
        return quadratic + jnp.sum(jnp.log(variance)) / 2 + self.slope * jnp.log(sigma)


def test_fit_finds_the_parameters_of_a_gaussian_and_its_normaliser():
    mean, scale = np.array([1.0, -0.5]), np.array([0.5, 1.5])
    z = np.random.default_rng(0).normal(size=(4_000, 2))
    x = mean + scale * (z - z.mean(0)) / z.std(0)
    start = Gaussian(jnp.zeros(2), jnp.zeros(2), jnp.ones(()))
    fitted = fit(
        start,
        DualScoreMatching(VarianceExploding(0.1, 10.0)),
        x,
        key=KEY,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 1_000)),
        num_steps=1_000,
        batch_size=256,
        progress_bar=False,
    ).module
    np.testing.assert_allclose(fitted.mean, mean, atol=0.03)
    np.testing.assert_allclose(np.exp(fitted.log_scale), scale, rtol=0.03)
    np.testing.assert_allclose(fitted.slope, 0, atol=0.02)


def test_the_residual_of_the_heat_equation_is_zero_for_the_energy_of_data_with_noise(x64):
    def loss(energy, weight):
        return DualScoreMatching(PROCESS, fokker_planck_weight=weight)(energy, POINTS, key=KEY)

    np.testing.assert_allclose(loss(true_energy, 1e3), loss(true_energy, 0.0), rtol=1e-9)
    # An energy with a ln(sigma) more has the residual a at all points and levels.
    a = 0.3
    found = loss(lambda x, sigma: true_energy(x, sigma) + a * jnp.log(sigma), 2.0)
    without = loss(lambda x, sigma: true_energy(x, sigma) + a * jnp.log(sigma), 0.0)
    sigma = PROCESS.noise_level(stratified_times(random.split(KEY)[0], len(POINTS)))
    weight = np.mean(KarrasWeight()(sigma) * sigma**2)
    np.testing.assert_allclose(found - without, weight * a**2, rtol=1e-9)


def test_a_prior_of_an_energy_is_trained_as_the_energy_is(x64):
    objective = DualScoreMatching(PROCESS)
    prior = DiffusionPrior(true_energy, PROCESS, 1)
    expected = objective(true_energy, POINTS, key=KEY)
    np.testing.assert_allclose(objective(prior, POINTS, key=KEY), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="must not have a log_normalizer here"):
        objective(DiffusionPrior(true_energy, PROCESS, 1, log_normalizer=0.0), POINTS, key=KEY)


@pytest.mark.parametrize(
    "module, message",
    [
        (lambda x, sigma: x, r"it is a denoiser, which is trained on DenoisingScoreMatching\("),
        (lambda x, sigma: x[:1, None], r"U\(x, sigma\) must map one .*\(1, 1\). Or to shape \(\)"),
        (lambda x: jnp.sum(x), "can't be called with two arguments"),
        (DiffusionPrior(lambda x, sigma: x, PROCESS, 1), "it is a denoiser"),
    ],
)
def test_a_module_that_is_no_energy_of_noise_levels_is_told(module, message):
    with pytest.raises(ValueError, match=message):
        DualScoreMatching(PROCESS)(module, POINTS, key=KEY)


def test_arguments_that_do_not_fit_are_told():
    with pytest.raises(TypeError, match="noise must be a process .*, got 0.5: an energy of one"):
        DualScoreMatching(0.5)
    with pytest.raises(ValueError, match="time_weight must be a finite positive number, got 0"):
        DualScoreMatching(PROCESS, time_weight=0.0)
    with pytest.raises(ValueError, match="fokker_planck_weight must be a finite positive number"):
        DualScoreMatching(PROCESS, fokker_planck_weight=-1.0)
