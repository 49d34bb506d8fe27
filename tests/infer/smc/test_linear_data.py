# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The covariance of many Normal numbers that are linear in the value of a diffusion prior."""

from functools import partial

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
from numpyro_scores.infer.smc.exponential_steps import in_steps
from numpyro_scores.infer.smc.level_moves import twisted
from numpyro_scores.infer.smc.linear_data import LowRankNormal, data_basis
from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.smc.twist_noise import informed_noise, reversing_level

pytestmark = pytest.mark.usefixtures("quick_compilation")

PROCESS = ns.VarianceExploding(sigma_min=0.1, sigma_max=50.0)
RNG = np.random.default_rng(0)
ROWS, WIDTHS = RNG.normal(size=(70, 3)), RNG.uniform(0.5, 2.0, size=70)
Y = RNG.normal(size=70)


def denoise(x, sigma):
    return x / (1 + sigma**2)


def measured(level=0.1):
    """With an unknown noise, and means that another site shifts."""
    x = numpyro.sample("x", ns.DiffusionPrior(denoise, PROCESS, 3, sigma=level))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    shift = numpyro.sample("shift", dist.Normal())
    numpyro.sample("y", dist.Normal(shift + ROWS @ x, scale * WIDTHS).to_event(1), obs=Y)


def test_a_normal_of_few_directions_is_that_of_its_covariance(x64):
    factor, weights = RNG.normal(size=(6, 2)), np.array([2.0, -0.05])
    diagonal, v = RNG.uniform(0.5, 2.0, size=6), RNG.normal(size=6)
    covariance = np.diag(diagonal) + (factor * weights) @ factor.T
    law = LowRankNormal(*map(jnp.asarray, (diagonal, factor, weights)))
    np.testing.assert_allclose(law.solve(v), np.linalg.solve(covariance, v), rtol=1e-10)
    exact = stats.multivariate_normal.logpdf(v, np.zeros(6), covariance)
    np.testing.assert_allclose(law.log_density(v), exact, rtol=1e-10)


@pytest.mark.parametrize("sigma, added", [(1.5, 0.0), (0.1, 0.0), (1.5, 0.3)])
def test_a_twist_in_the_basis_of_the_data_is_exact_for_gaussians(x64, sigma, added):
    """Of 70 numbers in three dimensions; at the smallest level it is the likelihood."""
    model = FlatModel(measured, (), {})
    at = jnp.array([np.log(0.7), 0.2, 0.3, -1.0, 2.0])  # log scale, shift and x
    levels = jnp.array([50.0, sigma])

    @jax.jit
    def found(at, added):
        # The reference is another noise than that of the point.
        basis = data_basis(DiffusionTwist(model), at.at[0].set(0.4))
        added_by_level = added * jnp.asarray(WIDTHS**2) * jnp.ones((2, 1))
        twist = DiffusionTwist(model, levels, added_by_level, basis)
        return twisted(random.key(0), at, twist, levels[1], jnp.zeros(5), num_moves=0).point

    twist = DiffusionTwist(model, basis=data_basis(DiffusionTwist(model), at))
    point = found(at, added)
    share = (1 + 0.1**2) / (1 + sigma**2)
    covariance = share * (sigma**2 - 0.1**2) * ROWS @ ROWS.T
    covariance += np.diag((0.7**2 + added) * WIDTHS**2)
    law = dist.MultivariateNormal(0.2 + share * ROWS @ at[2:], covariance)
    np.testing.assert_allclose(-point.energy, law.log_prob(Y), rtol=1e-6)
    slope = share * ROWS.T @ np.linalg.solve(covariance, Y - law.loc)
    np.testing.assert_allclose(-point.grad[2:], slope, rtol=1e-6)
    assert twist.num_products(at) == 7 and not twist.varies(at)


def test_weights_of_normal_values_are_one_where_the_noise_rises_to_the_reversing_level(x64):
    """Whatever the particle and its noise: what is left is the error of the flow."""
    plain = DiffusionTwist(FlatModel(measured, (), {}))
    x = random.normal(random.key(0), (50, 5))
    twist = DiffusionTwist(plain.model, basis=data_basis(plain, x[0]))
    sigma, new_sigma = jnp.array(0.8), jnp.array(0.75)
    churned = reversing_level(x, twist, sigma, new_sigma, 50)
    np.testing.assert_allclose(1 + churned**2, (1 + sigma**2) ** 2 / (1 + new_sigma**2), rtol=1e-9)

    @jax.jit
    @jax.vmap
    def log_weight(x, key):
        def log_twist(x, sigma):
            return -twisted(key, x, twist, sigma, jnp.zeros(5), num_moves=0).point.energy

        risen, log_ratio = informed_noise(key, x, 0 * x, twist, sigma, churned, new_sigma)
        moved = in_steps(twist.flow, risen, churned, new_sigma, 3)
        return log_ratio + log_twist(moved, new_sigma) - log_twist(x, sigma)

    found = log_weight(x, random.split(random.key(1), 50))
    np.testing.assert_allclose(found, 0, atol=0.01)


def test_particles_take_along_what_the_denoiser_said_of_them(x64):
    sampler = ns.TwistedDiffusionSampler(measured, 30, num_levels=3)
    sampler._levels = np.geomspace(50.0, 0.1, 3)
    model = FlatModel(measured, (), {})
    start = partial(sampler._start, model=model, given={})
    state = jax.jit(lambda key: sampler._level(start(key), model))(random.key(0))
    twist = sampler._twist(model, state.added_variances)
    exact = jax.vmap(lambda x: twist.mean(x, state.rung))(state.points.x)
    np.testing.assert_allclose(state.seen.mean, exact, rtol=1e-9)
    # Nine for the flow, four for the twist and the level, and seven products.
    assert state.rounds.num_grad_evals[1] == 20


def test_the_noise_asks_nothing_of_a_denoiser_that_the_twist_has_asked(monkeypatch, x64):
    plain = DiffusionTwist(FlatModel(measured, (), {}))
    x = random.normal(random.key(0), (5,))
    twist = DiffusionTwist(plain.model, basis=data_basis(plain, x))
    ends = tuple(map(jnp.asarray, (0.8, 1.0, 0.6)))
    found = twisted(random.key(1), x, twist, ends[0], jnp.zeros(5), num_moves=0)
    exact = informed_noise(random.key(2), x, 0 * x, twist, *ends)
    monkeypatch.setattr(twist, "denoised", None)
    again = informed_noise(random.key(2), x, 0 * x, twist, *ends, found.seen)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9), again, exact)


def bent():
    x = numpyro.sample("x", ns.DiffusionPrior(denoise, PROCESS, 3))
    numpyro.sample("y", dist.Normal(jnp.tanh(ROWS @ x), 1.0).to_event(1), obs=Y)


def gained():
    x = numpyro.sample("x", ns.DiffusionPrior(denoise, PROCESS, 3))
    gain = numpyro.sample("gain", dist.Normal(1.0, 0.5))
    numpyro.sample("y", dist.Normal(gain * ROWS @ x, 1.0).to_event(1), obs=Y)


@pytest.mark.parametrize("model", [bent, gained])
def test_data_that_are_not_linear_whatever_the_other_sites_have_no_basis(model):
    flat = FlatModel(model, (), {})
    assert data_basis(DiffusionTwist(flat), flat.flat()) is None


@pytest.mark.slow
def test_posterior_and_evidence_of_eighty_numbers():
    """Two hundred dimensions, of which one is wide: a direction of its own."""
    dim, num = 200, 80
    operator = jnp.asarray(np.random.default_rng(1).normal(size=(num, dim)) / dim**0.5)
    variance = np.ones(dim)
    variance[0] = 100.0

    def wide(x, sigma):
        return x * variance / (variance + sigma**2)

    def model(y):
        x = numpyro.sample("x", ns.DiffusionPrior(wide, PROCESS, dim))
        numpyro.sample("y", dist.Normal(operator @ x, 0.1).to_event(1), obs=y)

    draw = np.random.default_rng(2).normal(size=dim) * np.sqrt(variance)
    y = operator @ draw + 0.1 * np.random.default_rng(3).normal(size=num)
    sampler = ns.TwistedDiffusionSampler(model, 500, progress_bar=False)
    sampler.run(random.key(0), jnp.asarray(y))
    prior = np.diag(variance + 0.1**2)
    marginal = operator @ prior @ operator.T + 0.1**2 * np.eye(num)
    gain = np.linalg.solve(marginal, operator @ prior).T
    sd = np.sqrt(np.diag(prior - gain @ operator @ prior))
    x = np.asarray(sampler.get_samples()["x"], float)
    assert sampler.rounds.ess.min() > 100
    assert np.sqrt(np.mean(((x.mean(axis=0) - gain @ y) / sd) ** 2)) < 0.1
    np.testing.assert_allclose(np.mean(x.std(axis=0) / sd), 1, atol=0.03)
    exact = stats.multivariate_normal.logpdf(y, np.zeros(num), marginal)
    assert_within(sampler.log_evidence, exact, sampler.log_evidence_error)
