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
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.smc.twist_noise import informed_noise

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
def test_noise_and_its_weight_are_of_the_gaussian_that_the_data_ask_for(settings):
    n, sigma, churned, new_sigma, level = 10_000, 0.8, 1.2, 0.6, PROCESS.sigma_min
    twist = DiffusionTwist(FlatModel(measured, (), settings))
    at, slope = jnp.array([np.log(0.4), 0.3, -1.0, 2.0]), jnp.array([5.0, 1.0, -2.0, 1.0])

    @jax.jit
    @jax.vmap
    def draw(key):
        return informed_noise(key, at, slope, twist, sigma, churned, new_sigma)

    risen, log_ratio = draw(random.split(random.key(0), n))
    np.testing.assert_array_equal(risen[:, 0], at[0])  # the other site has no noise
    x, s = np.asarray(at[1:], float), np.sqrt(churned**2 - sigma**2)
    z = (np.asarray(risen[:, 1:], float) - x) / s
    # Of N(0, 1) with noise: what is expected of the value at the smallest level.
    share = (1 + level**2) / (1 + sigma**2)
    mean, precision = np.zeros(3), np.eye(3)
    if settings.get("num"):
        mean = s * np.asarray(slope[1:])
    if settings.get("other"):
        student = dist.StudentT(3.0, 0.0, 0.4)
        pull = jax.grad(student.log_prob)(2.0 - share * (x[0] - x[2]))
        mean = s * share * pull * np.array([-1.0, 0.0, 1.0])
    if not settings.get("num"):
        moved = share * s * OPERATOR
        spread = OPERATOR @ OPERATOR.T * share * (new_sigma**2 - level**2) + np.eye(2)
        residual = 2 - share * OPERATOR @ x - moved @ mean
        precision = np.eye(3) + moved.T @ np.linalg.solve(spread, moved)
        mean = mean + np.linalg.solve(precision, moved.T @ np.linalg.solve(spread, residual))
    root = np.linalg.cholesky(precision)
    white = (z - mean) @ root
    assert_within(white.mean(axis=0), 0, 1 / np.sqrt(n))
    off = np.where(np.eye(3), np.sqrt(2 / n), np.sqrt(1 / n))
    assert_within(white.T @ white / n, np.eye(3), off)
    log_q = -np.sum(white**2, axis=1) / 2 + np.log(np.diag(root)).sum()
    np.testing.assert_allclose(log_ratio, -np.sum(z**2, axis=1) / 2 - log_q, atol=1e-4)


@pytest.mark.slow
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
