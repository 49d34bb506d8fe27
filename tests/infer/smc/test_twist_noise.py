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
from scipy import stats

import numpyro_scores as ns
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc import twist as twist_module
from numpyro_scores.infer.smc.directions import by_directions
from numpyro_scores.infer.smc.linear_data import data_basis
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
        numpyro.sample("z", dist.StudentT(3.0, x[0] - x[2], scale), obs=0.0)


@pytest.mark.parametrize(
    "settings, has_basis",
    [
        ({}, False),
        ({"other": True}, False),
        ({"num": 70}, False),
        ({"num": 70, "other": True}, True),
    ],
)
def test_noise_and_its_weight_are_of_the_gaussian_that_the_data_ask_for(settings, has_basis):
    n, sigma, churned, new_sigma, level = 10_000, 0.8, 1.2, 0.6, PROCESS.sigma_min
    model, rows = (
        FlatModel(measured, (), settings),
        np.resize(OPERATOR, (settings.get("num", 2), 3)),
    )
    twist = DiffusionTwist(model)
    is_free = len(rows) > 2 and not has_basis
    at, slope = jnp.array([np.log(0.4), 0.3, -1.0, 2.0]), jnp.array([5.0, 1.0, -2.0, 1.0])
    if has_basis:
        twist = DiffusionTwist(model, basis=data_basis(twist, at))

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
    mean, precision, residual = np.zeros(3), np.eye(3), 2 - share * rows @ x
    if is_free:
        mean = s * np.asarray(slope[1:])
    if settings.get("other"):
        row, loc = np.array([1.0, 0.0, -1.0]), share * (x[0] - x[2])
        sd = np.sqrt(2 * share * (sigma**2 - level**2))  # of the mean of the Student datum
        value = loc + sd * np.linspace(-8, 8, 4_001)
        weights = stats.t.pdf(value, 3.0, 0.0, 0.4) * stats.norm.pdf(value, loc, sd)
        at = np.average(value, weights=weights) - loc
        if has_basis:
            mean = s * share * row * at / sd**2
        else:  # a Normal number with the mean and the variance of its value that this one has
            after = np.average((value - loc - at) ** 2, weights=weights)
            root = np.sqrt(1 / after - 1 / sd**2)
            rows = np.vstack([rows, root * row])
            residual = np.append(residual, at / after / root)
    if not is_free:
        moved = share * s * rows
        there = (1 + level**2) / (1 + new_sigma**2) if has_basis else share
        spread = rows @ rows.T * there * (new_sigma**2 - level**2) + np.eye(len(rows))
        pull = np.linalg.solve(spread, residual - moved @ mean)
        precision = np.eye(3) + moved.T @ np.linalg.solve(spread, moved)
        mean = mean + np.linalg.solve(precision, moved.T @ pull)
    root = np.linalg.cholesky(precision)
    white = (z - mean) @ root
    assert_within(white.mean(axis=0), 0, 1 / np.sqrt(n))
    off = np.where(np.eye(3), np.sqrt(2 / n), np.sqrt(1 / n))
    assert_within(white.T @ white / n, np.eye(3), off)
    log_q = -np.sum(white**2, axis=1) / 2 + np.log(np.diag(root)).sum()
    tolerance = 5e-3 if settings.get("other") else 1e-4  # of quadrature with few nodes
    np.testing.assert_allclose(log_ratio, -np.sum(z**2, axis=1) / 2 - log_q, atol=tolerance)


def test_directions_of_their_own_enter_the_noise_and_its_weight(monkeypatch, x64):
    """
    Six dimensions, two of which are wide, in the basis of five numbers: the ratio of the densities
    at a draw is that of the law in closed form, with the matrix that four directions know.
    """
    variance, rows = np.array([9.0, 4.0, 1.0, 1.0, 1.0, 1.0]), np.random.default_rng(0)
    rows, y = rows.normal(size=(5, 6)), rows.normal(size=5)

    def model():
        def wide(x, sigma):
            return x * variance / (variance + sigma**2)

        x = numpyro.sample("x", ns.DiffusionPrior(wide, PROCESS, 6))
        numpyro.sample("y", dist.Normal(rows @ x, 0.7).to_event(1), obs=y)

    monkeypatch.setattr(twist_module, "MANY_DIRECTIONS", 4)
    plain = DiffusionTwist(FlatModel(model, (), {}))
    x, ends = jnp.linspace(-1.0, 2.0, 6), (0.8, 1.2, 0.6)
    twist = DiffusionTwist(plain.model, basis=data_basis(plain, x))
    keys = random.split(random.key(0), 4_000)
    risen, log_ratio = jax.jit(
        jax.vmap(lambda key: informed_noise(key, x, jnp.zeros(6), twist, *map(jnp.asarray, ends)))
    )(keys)
    sigma, churned, new_sigma = ends
    slopes = (variance + 0.1**2) / (variance + sigma**2)
    s = np.sqrt(churned**2 - sigma**2)
    known = by_directions(lambda v: slopes * v, np.arange(6), jnp.zeros(6))  # four of six
    matrix = np.asarray(jax.vmap(known)(jnp.eye(6)))
    assert 0.05 < np.max(np.abs(matrix - np.diag(np.diag(matrix))))
    moved = s * rows @ matrix
    values, vectors = np.linalg.eigh(matrix)
    high, low = sigma**2 - 0.1**2, new_sigma**2 - 0.1**2
    there = (vectors * (values * high / (values * high + (1 - values) * low))) @ vectors.T
    spread = low * rows @ there @ rows.T + 0.7**2 * np.eye(5)
    precision = np.eye(6) + moved.T @ np.linalg.solve(spread, moved)
    mean = np.linalg.solve(precision, moved.T @ np.linalg.solve(spread, y - rows @ (slopes * x)))
    z = np.asarray((risen - x) / s)
    white = (z - mean) @ np.linalg.cholesky(precision)
    assert_within(white.mean(axis=0), 0, 1 / np.sqrt(4_000))
    off = np.where(np.eye(6), np.sqrt(2 / 4_000), np.sqrt(1 / 4_000))
    assert_within(white.T @ white / 4_000, np.eye(6), off)
    log_q = -np.sum(white**2, axis=1) / 2 + np.linalg.slogdet(precision)[1] / 2
    np.testing.assert_allclose(log_ratio, -np.sum(z**2, axis=1) / 2 - log_q, atol=1e-6)


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
