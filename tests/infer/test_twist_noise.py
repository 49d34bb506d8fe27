# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Noise that the data steer: its weights, and how few particles are lost."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within
from jax import random

import numpyro_scores as ns
from numpyro_scores.infer._particle_model import ParticleModel
from numpyro_scores.infer._twist_noise import informed_noise

pytestmark = pytest.mark.usefixtures("quick_compilation")

PROCESS = ns.VarianceExploding(sigma_min=0.1, sigma_max=50.0)
OPERATOR = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], np.float32)


def denoise(x, sigma):
    return x / (1 + sigma**2)


def measured(num=2, other=False):
    """
    :param num: how many Normal numbers; more than 64 have no covariance.
    :param other: whether a datum is not Normal.
    """
    x = numpyro.sample("x", ns.DiffusionPrior(denoise, PROCESS, 3))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    rows = np.resize(OPERATOR, (num, 3))
    numpyro.sample("y", dist.Normal(rows @ x, 1.0).to_event(1), obs=jnp.full(num, 2.0))
    if other:
        numpyro.sample("z", dist.StudentT(3.0, x[0] - x[2], scale), obs=2.0)


@pytest.mark.parametrize("settings", [{}, {"other": True}, {"num": 70}])
def test_weighted_draws_are_standard_normal(settings):
    """For any data: the particles' weights hold, be the steering good or bad."""
    n, sigma, churned, new_sigma = 40_000, 0.8, 1.2, 0.6
    model = ParticleModel(measured, (), settings)
    at = jnp.array([np.log(0.4), 0.3, -1.0, 2.0])
    # Less than the data want, here as above, so that the weights have a variance.
    slope = 0.3 * jnp.array([5.0, 1.0, -2.0, 1.0])
    draw = jax.jit(
        jax.vmap(lambda key: informed_noise(key, at, slope, model, sigma, churned, new_sigma))
    )
    risen, log_ratio = draw(random.split(random.key(0), n))
    np.testing.assert_array_equal(risen[:, 0], at[0])  # the other site has no noise
    z = np.asarray(risen - at, float)[:, 1:] / np.sqrt(churned**2 - sigma**2)
    weights = np.exp(np.asarray(log_ratio, float))[:, None]
    for values, exact in [(weights, 1), (weights * z, 0), (weights * z**2, 1)]:
        assert_within(values.mean(axis=0), exact, values.std(axis=0) / np.sqrt(n))
    assert abs(z.mean(axis=0)).max() > 0.1  # and the noise is steered


def test_noise_below_the_smallest_level_and_many_numbers_leave_most_particles():
    """Twelve numbers with a noise of a tenth of the smallest level of the prior."""
    rng = np.random.default_rng(0)
    operator = rng.normal(size=(12, 16)).astype(np.float32) / 4
    y = operator @ rng.normal(size=16).astype(np.float32)

    def model(y):
        x = numpyro.sample("x", ns.DiffusionPrior(denoise, PROCESS, 16))
        numpyro.sample("y", dist.Normal(operator @ x, 0.01).to_event(1), obs=y)

    sampler = ns.TwistedDiffusionSampler(model, 1_000, num_steps=1, progress_bar=False)
    sampler.run(random.key(0), y)
    variance = 1 + PROCESS.sigma_min**2
    marginal = variance * operator @ operator.T + 0.01**2 * np.eye(12)
    gain = variance * np.linalg.solve(marginal, operator).T
    sd = np.sqrt(np.diag(variance * (np.eye(16) - gain @ operator)))
    x = np.asarray(sampler.get_samples()["x"], float)
    assert_within(x.mean(axis=0), gain @ y, sd / np.sqrt(200))
    assert_within(x.std(axis=0), sd, sd / np.sqrt(400))
    exact = dist.MultivariateNormal(np.zeros(12), marginal).log_prob(y)
    assert_within(sampler.log_evidence, exact, sampler.log_evidence_error)
    assert sampler.rounds.ess.min() > 200
