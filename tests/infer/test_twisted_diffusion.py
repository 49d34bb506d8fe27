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
from jax import lax, random

import numpyro_scores as ns
from numpyro_scores.infer._diffusion_twist import DiffusionTwist
from numpyro_scores.infer._particle_model import ParticleModel

# Much is compiled here, for little to be computed.
pytestmark = pytest.mark.usefixtures("quick_compilation")

NOISE = 0.3
PROCESS = ns.VarianceExploding(sigma_min=0.02, sigma_max=50.0)
OPERATOR = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], np.float32)
Y = jnp.array([1.0, -2.0])


def denoise(x, sigma):
    return x / (1 + sigma**2)


PRIOR = ns.DiffusionPrior(denoise, PROCESS, 3)


def linear(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(OPERATOR @ x, NOISE).to_event(1), obs=y)


def wide(y):
    """More numbers than have a covariance of their own, alike in all directions."""
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(jnp.tile(x, 8), NOISE).to_event(1), obs=y)


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


def test_the_twist_is_exact_for_gaussians():
    x, sigma = jnp.array([0.3, -1.0, 2.0]), 1.5
    twist = DiffusionTwist(ParticleModel(linear, (Y,), {}))
    found, grad = jax.jit(jax.value_and_grad(twist.log_twist))(x, sigma)
    variance = sigma**2 / (1 + sigma**2)
    covariance = variance * OPERATOR @ OPERATOR.T + NOISE**2 * np.eye(2)
    exact = dist.MultivariateNormal(OPERATOR @ x / (1 + sigma**2), covariance).log_prob(Y)
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    residual = Y - OPERATOR @ x / (1 + sigma**2)
    slope = OPERATOR.T @ np.linalg.solve(covariance, residual) / (1 + sigma**2)
    np.testing.assert_allclose(grad, slope, rtol=1e-4)


@pytest.mark.slow
def test_many_numbers_are_widened_one_by_one():
    x, sigma = jnp.array([0.3, -1.0, 2.0]), 1.5
    y = jnp.linspace(-1.0, 1.0, 24)
    twist = DiffusionTwist(ParticleModel(wide, (y,), {}))
    scale = jnp.sqrt(NOISE**2 + sigma**2 / (1 + sigma**2))
    exact = dist.Normal(jnp.tile(x, 8) / (1 + sigma**2), scale).log_prob(y).sum()
    np.testing.assert_allclose(jax.jit(twist.log_twist)(x, sigma), exact, rtol=1e-4)
    assert twist.num_products(x) == 1


def test_other_data_see_the_denoised_value_and_other_sites_have_no_noise():
    model = ParticleModel(mixed, (Y,), {})
    twist, sigma = DiffusionTwist(model), 1.5
    at = jnp.array([np.log(0.4), 0.3, -1.0, 2.0])  # the logarithm of the noise scale, and x
    clean = at[1:] / (1 + sigma**2)
    np.testing.assert_allclose(twist.denoised(at, sigma), jnp.append(at[0], clean), rtol=1e-5)
    np.testing.assert_array_equal(twist.is_noisy(at), [0, 1, 1, 1])
    covariance = sigma**2 / (1 + sigma**2) * OPERATOR @ OPERATOR.T + 0.4**2 * np.eye(2)
    exact = dist.MultivariateNormal(OPERATOR @ clean, covariance).log_prob(Y)
    exact += dist.StudentT(3.0, clean[0], 0.4).log_prob(0.7)
    np.testing.assert_allclose(jax.jit(twist.log_twist)(at, sigma), exact, rtol=1e-4)


def test_the_flow_carries_the_density_of_a_level_to_that_of_another():
    twist = DiffusionTwist(ParticleModel(linear, (Y,), {}))
    x = jnp.array([0.3, -1.0, 2.0])
    # Of N(0, 1 + sigma^2) the flow keeps the quantiles; the error of a step is of third order.
    for ratio in (0.9, 0.95):
        exact = np.sqrt((1 + (1.5 * ratio) ** 2) / (1 + 1.5**2)) * x
        np.testing.assert_allclose(
            twist.flow(x, 1.5, 1.5 * ratio), exact, rtol=0.2 * (1 - ratio) ** 3
        )


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
    # Two for the flow, two for the twist, two products; the last round has moves of three.
    np.testing.assert_array_equal(rounds.num_grad_evals[1:-1], 6)
    assert rounds.num_grad_evals[-1] == 1 + 8 * 3


@pytest.mark.slow
@pytest.mark.parametrize("churn", [0.2, 1.0])
def test_the_reported_error_of_the_evidence_is_its_error(churn):
    sampler = ns.TwistedDiffusionSampler(linear, 500, num_levels=40, churn=churn)
    sampler._levels = np.geomspace(50.0, 0.02, 40)

    def one(key):
        model = ParticleModel(linear, (Y,), {})
        state = sampler._start(key, model, {})
        state = lax.while_loop(lambda s: ~s.is_done, partial(sampler._round, model=model), state)
        return state.log_evidence, state.relative_variance

    keys = random.split(random.key(5), 100)
    values, variances = jax.jit(lambda keys: lax.map(one, keys, batch_size=20))(keys)
    values, errors = np.asarray(values, float), np.sqrt(np.asarray(variances, float))
    assert np.sum(np.abs(values - LOG_EVIDENCE) < 3 * errors) >= 95
    assert 0.6 < values.std() / errors.mean() < 1.4


@pytest.mark.slow
def test_a_nuisance_scale_is_inferred_too():
    def model(y):
        x = numpyro.sample("x", PRIOR)
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(x, noise).expand([20, 3]).to_event(2), obs=y)

    y = 1.0 + 0.5 * random.normal(random.key(3), (20, 3))
    sampler = ns.TwistedDiffusionSampler(model, 4_000, num_steps=30, progress_bar=False)
    sampler.run(random.key(0), y)
    tempered = ns.TemperedSMC(model, 4_000, num_steps=10, progress_bar=False)
    tempered.run(random.key(1), y)
    for name, few in (("noise", 100), ("x", 100)):
        one, other = (np.asarray(s.get_samples()[name]) for s in (sampler, tempered))
        error = other.std(axis=0) * np.sqrt(2 / few)
        assert_within(one.mean(axis=0), other.mean(axis=0), error)


def no_diffusion(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(x, 1), obs=y)


@pytest.mark.parametrize(
    "model, settings, message",
    [
        (no_diffusion, {}, r"the latent sites \['x'\] have none. Use a DiffusionPrior"),
        (linear, {"num_levels": 1}, "num_levels must be from 2 to 999, got 1"),
        (linear, {"churn": 0.0}, "churn must be a finite positive number, got 0.0"),
    ],
)
def test_errors_in_words(model, settings, message):
    with pytest.raises(ValueError, match=message):
        ns.TwistedDiffusionSampler(model, 10, progress_bar=False, **settings).run(
            random.key(0), 0.0
        )
