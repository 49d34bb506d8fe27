# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Sequential Monte Carlo through noise levels: twists that are exact, posteriors, evidences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within
from infer.smc.twists import (
    NOISE,
    OPERATOR,
    PRIOR,
    PROCESS,
    Y,
    given_noise,
    linear,
    unmoved,
)
from jax import lax, random
from scipy import stats

import numpyro_scores as ns
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.directions import by_directions
from numpyro_scores.infer.smc.level_moves import twisted
from numpyro_scores.infer.smc.twist import DiffusionTwist

# Much is compiled here, for little to be computed.
pytestmark = pytest.mark.usefixtures("quick_compilation")


def wide(y, noise=NOISE):
    """More numbers than take a product with the Jacobian each."""
    x = numpyro.sample("x", PRIOR)
    repeated = jnp.tile(x, len(y) // 3)
    numpyro.sample("y", dist.Normal(repeated, noise).to_event(1), obs=y)


def wide_with_unknown_noise(y):
    wide(y, numpyro.sample("noise", dist.HalfNormal(1.0)))


def gained(y):
    """The means depend on a site without noise, and so does what the data know of `x`."""
    gain = numpyro.sample("gain", dist.Normal(1.0, 0.5))
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(gain * (OPERATOR @ x), NOISE).to_event(1), obs=y)


def mixed(y):
    x = numpyro.sample("x", PRIOR)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("entries", 2):
        numpyro.sample("y", dist.Normal(OPERATOR @ x, noise), obs=y)
    numpyro.sample("z", dist.StudentT(3.0, x[0], noise), obs=0.7)


MARGINAL = OPERATOR @ OPERATOR.T + NOISE**2 * np.eye(2)
GAIN = np.linalg.solve(MARGINAL, OPERATOR).T
MEAN, COVARIANCE = GAIN @ np.asarray(Y), np.eye(3) - GAIN @ OPERATOR
LOG_EVIDENCE = float(dist.MultivariateNormal(np.zeros(2), MARGINAL).log_prob(Y))


@pytest.mark.parametrize("level, sigma", [(None, 1.5), (0.7, 1.5), (0.7, 0.7), (0.7, 0.1)])
def test_the_twist_is_exact_for_gaussians(level, sigma):
    """It is the likelihood at the level that the prior has in the model, and below."""
    x = jnp.array([0.3, -1.0, 2.0])
    point = unmoved(FlatModel(linear, (Y,), {"level": level}), x, sigma)
    level = level or PROCESS.sigma_min
    mean, variance = given_noise(x, max(sigma, level), level)
    covariance = variance * OPERATOR @ OPERATOR.T + NOISE**2 * np.eye(2)
    exact = dist.MultivariateNormal(OPERATOR @ mean, covariance).log_prob(Y)
    np.testing.assert_allclose(-point.energy, exact, rtol=1e-5)
    slope = OPERATOR.T @ np.linalg.solve(covariance, Y - OPERATOR @ mean) * (mean / x)
    np.testing.assert_allclose(-point.grad, slope, rtol=1e-4)


def test_slopes_of_the_twist_are_those_of_differences(x64):
    """In the entries of a noise scale too, whose way goes through a covariance."""
    twist = DiffusionTwist(FlatModel(mixed, (Y,), {}))
    at, sigma, h = np.array([np.log(0.4), 0.3, -1.0, 2.0]), 1.5, 1e-5

    @jax.jit
    @jax.vmap
    def point(x):
        return twisted(random.key(0), x, twist, sigma, jnp.zeros_like(x), num_moves=0).point

    ends = point(at + h * np.concatenate([np.eye(4), -np.eye(4)])).energy.reshape(2, 4)
    slopes = (ends[0] - ends[1]) / (2 * h)
    # The point has the slope of the prior of the scale as well: of exp(t) under a half-normal.
    slopes = slopes.at[0].add(0.4**2 - 1)
    np.testing.assert_allclose(point(at[None]).grad[0], slopes, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("num_repeats, num_products", [(8, 9), (24, 1)])
def test_many_numbers_take_few_products(num_repeats, num_products):
    """In three dimensions the four directions are all; more than 64 numbers are independent."""
    x, sigma = jnp.array([0.3, -1.0, 2.0]), 1.5
    y = jnp.linspace(-1.0, 1.0, 3 * num_repeats)
    model = FlatModel(wide, (y,), {})
    rows = np.tile(np.eye(3), (num_repeats, 1))
    mean, variance = given_noise(x, sigma)
    spread = variance * (rows @ rows.T if num_repeats == 8 else np.eye(len(y)))
    law = dist.MultivariateNormal(rows @ mean, spread + NOISE**2 * np.eye(len(y)))
    np.testing.assert_allclose(-unmoved(model, x, sigma).energy, law.log_prob(y), rtol=1e-4)
    assert DiffusionTwist(model).num_products(x) == num_products


@pytest.mark.slow
def test_few_directions_know_all_of_a_small_rank_and_of_a_multiple_of_the_identity(x64):
    root = np.random.default_rng(0).normal(size=(10, 3))
    for block in root @ root.T, 0.7 * np.eye(10):
        matrix = np.zeros((12, 12))
        matrix[2:, 2:] = block  # two entries are of other sites
        product = by_directions(partial(jnp.matmul, matrix), np.arange(2, 12), jnp.zeros(12))
        np.testing.assert_allclose(jax.vmap(product)(jnp.eye(12)), matrix, atol=1e-10)


def test_other_data_are_averaged_over_the_value_and_other_sites_have_no_noise():
    model = FlatModel(mixed, (Y,), {})
    twist, sigma = DiffusionTwist(model), 1.5
    at = jnp.array([np.log(0.4), 0.3, -1.0, 2.0])  # the logarithm of the noise scale, and x
    clean = at[1:] / (1 + sigma**2)
    np.testing.assert_allclose(twist.denoised(at, sigma), jnp.append(at[0], clean), rtol=1e-5)
    np.testing.assert_array_equal(twist.is_noisy(at), [0, 1, 1, 1])
    np.testing.assert_array_equal(twist.levels(at, sigma), np.float32([0, 1.5, 1.5, 1.5]))
    mean, variance = given_noise(at[1:], sigma)
    covariance = variance * OPERATOR @ OPERATOR.T + 0.4**2 * np.eye(2)
    exact = dist.MultivariateNormal(OPERATOR @ mean, covariance).log_prob(Y)
    value = np.linspace(-8, 8, 4_001)
    likelihood = stats.t.pdf(0.7, 3.0, value, 0.4) * stats.norm.pdf(value, mean[0], variance**0.5)
    exact += np.log(np.trapezoid(likelihood, value))
    np.testing.assert_allclose(-unmoved(model, at, sigma).energy, exact, atol=0.01)


def test_moves_of_other_sites_leave_the_twisted_density_as_it_is():
    x, sigma, n = np.array([0.3, -1.0, 2.0], np.float32), 1.5, 4_000
    model = FlatModel(gained, (Y,), {})
    twist = DiffusionTwist(model)
    assert twist.varies(jnp.append(1.0, x)) and twist.num_products(jnp.append(1.0, x)) == 9
    gains = np.linspace(-1.5, 3.5, 2_001)

    def at(gain):
        return jnp.append(gain, x)

    log_twists = jax.vmap(lambda gain: -unmoved(model, at(gain), sigma).energy)
    log_density = np.asarray(log_twists(gains), float) - (gains - 1) ** 2 / (2 * 0.5**2)
    weights = np.exp(log_density - log_density.max())
    cumulative = np.cumsum(weights) / weights.sum()
    key_start, key_moves = random.split(random.key(0))
    starts = np.interp(random.uniform(key_start, (n,)), cumulative, gains)

    @jax.jit
    @jax.vmap
    def move(key, gain):
        return twisted(key, at(gain), twist, sigma, jnp.ones(4), num_moves=3)

    particles = move(random.split(key_moves, n), starts)
    ends = np.asarray(particles.point.x[:, 0], float)
    mean = weights @ gains / weights.sum()
    sd = np.sqrt(weights @ (gains - mean) ** 2 / weights.sum())
    assert_within(ends.mean(), mean, sd / np.sqrt(n))
    # For a kurtosis of up to four.
    assert_within(ends.std(), sd, sd * np.sqrt(0.75 / n))
    assert 0.2 < np.mean(particles.accept_prob) < 0.8 and np.mean(ends == starts) < 0.3
    np.testing.assert_array_equal(particles.point.x[:, 1:], np.tile(x, (n, 1)))
    np.testing.assert_allclose(particles.log_twist, log_twists(starts), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(particles.point.energy, -log_twists(ends), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_an_unknown_noise_scale_keeps_its_draws_and_the_evidence():
    y = np.random.default_rng(0).normal(size=(8, 3)) * 0.4 + np.array([1.0, -0.5, 2.0])
    # One step at the end, so that its moves alone cannot tell the particles apart.
    sampler = ns.TwistedDiffusionSampler(
        wide_with_unknown_noise, 2_000, num_steps=1, progress_bar=False
    )
    sampler.run(random.key(0), jnp.asarray(y, jnp.float32).ravel())
    # The mean of the eight repeats, and what they differ by.
    noise = np.linspace(0.05, 3, 3_000)
    variance = noise[:, None] ** 2
    log_density = dist.HalfNormal(1.0).log_prob(noise) + dist.Normal(
        0, np.sqrt(1 + variance / 8)
    ).log_prob(y.mean(axis=0)).sum(axis=1)
    squares = np.sum((y - y.mean(axis=0)) ** 2)
    log_density += -squares / (2 * noise**2) - 21 / 2 * np.log(2 * np.pi * noise**2)
    log_density += -3 / 2 * np.log(8.0)
    log_density = np.asarray(log_density, float)
    weights = np.exp(log_density - log_density.max())
    log_evidence = np.log(weights.sum() * (noise[1] - noise[0])) + log_density.max()
    weights /= weights.sum()
    mean = weights @ noise
    sd = np.sqrt(weights @ (noise - mean) ** 2)
    found = np.asarray(sampler.get_samples()["noise"], float)
    assert_within(found.mean(), mean, sd / np.sqrt(400))
    assert_within(found.std(), sd, sd / np.sqrt(400))
    assert len(np.unique(found)) > 1_500
    assert_within(sampler.log_evidence, log_evidence, sampler.log_evidence_error)
    assert sampler.log_evidence_error < 0.15


def test_the_flow_carries_the_density_of_a_level_to_that_of_another():
    twist = DiffusionTwist(FlatModel(linear, (Y,), {}))
    x = jnp.array([0.3, -1.0, 2.0])
    # Of N(0, 1 + sigma^2) the flow keeps the quantiles; the error of a step is of fourth order.
    for ratio in (0.4, 0.6, 0.8, 0.99):
        exact = np.sqrt((1 + (1.5 * ratio) ** 2) / (1 + 1.5**2)) * x
        tolerance = 0.01 * np.log(ratio) ** 4 + 1e-6
        np.testing.assert_allclose(twist.flow(x, 1.5, 1.5 * ratio), exact, rtol=tolerance)


def test_posterior_and_evidence_of_a_linear_model():
    sampler = ns.TwistedDiffusionSampler(linear, 2_000, num_steps=8, progress_bar=False)
    sampler.run(random.key(0), Y)
    x = np.asarray(sampler.get_samples()["x"])
    sd = np.sqrt(np.diag(COVARIANCE))
    assert_within(x.mean(axis=0), MEAN, sd / np.sqrt(400))
    assert_within(x.std(axis=0), sd, sd / np.sqrt(800))
    assert_within(sampler.log_evidence, LOG_EVIDENCE, sampler.log_evidence_error)
    assert sampler.log_evidence_error < 0.15
    rounds = sampler.rounds
    np.testing.assert_allclose(rounds.rung[[0, -2, -1]], [50.0, 0.02, 0.02], rtol=1e-5)
    # Three for the flow, two for the twist and one for the noise, with two products for each; the
    # last round has moves of four.
    np.testing.assert_array_equal(rounds.num_grad_evals[1:-1], 10)
    assert rounds.num_grad_evals[-1] == 1 + 8 * 4


@pytest.mark.slow
@pytest.mark.parametrize("churn", [0.2, 1.0])
def test_the_reported_error_of_the_evidence_is_its_error(churn):
    sampler = ns.TwistedDiffusionSampler(linear, 500, num_levels=40, churn=churn)
    sampler._levels = np.geomspace(50.0, 0.02, 40)

    def one(key):
        model = FlatModel(linear, (Y,), {})
        state = sampler._start(key, model, {})
        state = lax.while_loop(lambda s: ~s.is_done, partial(sampler._round, model=model), state)
        return state.log_evidence, state.relative_variance

    keys = random.split(random.key(5), 100)
    values, variances = jax.jit(lambda keys: lax.map(one, keys, batch_size=20))(keys)
    values, errors = np.asarray(values, float), np.sqrt(np.asarray(variances, float))
    assert np.sum(np.abs(values - LOG_EVIDENCE) < 3 * errors) >= 95
    assert 0.6 < values.std() / errors.mean() < 1.4


@pytest.mark.slow
def test_a_collapse_to_a_few_particles_is_warned_of():
    # A hundred standard deviations from where the prior expects it.
    sampler = ns.TwistedDiffusionSampler(linear, 500, progress_bar=False)
    with pytest.warns(UserWarning, match="effective sample size of .* in one round"):
        sampler.run(random.key(0), 100 * Y)
