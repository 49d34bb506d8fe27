# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Particles: their weights, their resampling, their metric and their moves."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within
from infer.smc.conjugate import DIFFUSION, NOISE, SCORE, Y, learned
from jax import random
from scipy.special import softmax

import numpyro_scores as ns
from numpyro_scores.infer.langevin import mala
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.moves import fisher_root, move_particles, points_at
from numpyro_scores.infer.smc.weights import (
    effective_sample_size,
    incremental_log_weights,
    next_power,
    principal_order,
    resampled,
    systematic,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_resampling_is_unbiased_and_keeps_the_share_of_a_mode():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(7, 2)) - 9, np.full((5, 2), 9.0)])
    x = rng.permutation(x).astype(np.float32)
    log_weights = rng.normal(size=12).astype(np.float32)
    weights = softmax(log_weights)
    order = jax.jit(principal_order)(x, log_weights)

    def counts(key):
        return jnp.bincount(systematic(key, log_weights, 8, order), length=12)

    drawn = np.asarray(jax.jit(jax.vmap(counts))(random.split(random.key(3), 5_000)))
    assert_within(
        drawn.mean(axis=0), 8 * weights, np.maximum(drawn.std(axis=0), 0.01) / np.sqrt(5_000)
    )
    assert np.all((drawn >= np.floor(8 * weights)) & (drawn <= np.ceil(8 * weights)))
    mode = np.asarray(x[:, 0] > 0)
    share = 8 * weights[mode].sum()
    assert set(drawn[:, mode].sum(axis=1)) == {np.floor(share), np.ceil(share)}


@pytest.mark.parametrize("n", [5, 2_048, 16_384, 20_000])
def test_resampling_never_draws_a_row_of_weight_zero(n, monkeypatch):
    """Not with the smallest number and not with the largest that single precision knows."""
    log_weights = np.zeros(n, np.float32)
    log_weights[[0, n // 2, n - 1]] = -np.inf
    share = n * np.isfinite(log_weights) / (n - 3)

    @jax.jit
    def drawn(u, log_weights):
        monkeypatch.setattr(random, "uniform", lambda key, dtype: u)
        return systematic(None, log_weights, n, jnp.arange(n))

    for u in np.float32([0.0, 0.5, 1 - 2**-24]):
        counts = np.bincount(drawn(u, log_weights), minlength=n)
        assert counts.sum() == n and np.all(counts[share == 0] == 0)
        assert np.all((counts >= np.floor(share)) & (counts <= np.ceil(share)))
        np.testing.assert_array_equal(drawn(u, 0 * share.astype("float32")), np.arange(n))


def test_the_next_power_meets_the_effective_sample_size_and_ends_at_one():
    log_likelihood = np.append(-1e5 * np.random.default_rng(0).exponential(size=999), -np.inf)
    log_likelihood = log_likelihood.astype(np.float32)
    next_one = jax.jit(next_power)
    power = next_one(log_likelihood, 0.0, 500.0)
    log_weights = incremental_log_weights(log_likelihood, 0.0, power)
    np.testing.assert_allclose(effective_sample_size(log_weights), 500 * 0.999, rtol=1e-3)
    # The weights of an interval depend on its length alone.
    later = next_one(log_likelihood, 0.25, 500.0)
    np.testing.assert_allclose(later - 0.25, power, rtol=2e-3)
    assert next_one(np.float32(1e-3) * log_likelihood, 0.999, 500.0) == 1


def test_the_variance_of_weights_is_that_of_lines_and_resampling_adds_nothing():
    log_weights = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    x = jnp.arange(4.0)[:, None]
    select = jax.jit(resampled, static_argnums=(4, 5))
    found = select(random.key(0), x, log_weights, jnp.arange(4), 4, 4)
    np.testing.assert_allclose(found.variance, 0.3 - 1 / 4, rtol=1e-5)
    np.testing.assert_allclose(found.log_increment, np.log(1 / 4), rtol=1e-5)
    siblings = select(random.key(0), x, log_weights, jnp.array([0, 0, 1, 1]), 4, 4)
    np.testing.assert_allclose(siblings.variance, 0.3**2 + 0.7**2 - 1 / 2, rtol=1e-5)


def test_the_metric_is_the_covariance_within_a_mode():
    covariance = np.array([[2.0, 0.9], [0.9, 0.5]])
    within = np.random.default_rng(0).multivariate_normal(np.zeros(2), covariance, 100_000)
    grads = np.linalg.solve(covariance, within.T).T.astype(np.float32)  # the same in other modes
    of_grads = jax.jit(fisher_root, static_argnums=1)
    root = np.asarray(of_grads(grads, True))
    np.testing.assert_allclose(root.T @ root, covariance, rtol=0.03)
    precision = np.diagonal(np.linalg.inv(covariance))
    np.testing.assert_allclose(of_grads(grads, False) ** 2, 1 / precision, rtol=0.03)


def _moved(prior, power, num_steps=20, n=5_000):
    """Exact draws of the tempered posterior, before and after moves."""
    variance = 1 / (1 + power / NOISE**2)
    mean = variance * power / NOISE**2 * Y
    x = mean + jnp.sqrt(variance) * random.normal(random.key(0), (n, 2))

    def move(key):
        model = FlatModel(learned, (Y, prior), {})
        target = model.tempered(power, x[0], ns.LineIntegral(num_nodes=2))
        points = points_at(x, target, n)
        root = fisher_root(points.grad, dense=True)

        def step(key, point, step_size):
            return mala.step(key, point, target, step_size, root)

        return move_particles(key, points, step, jnp.array(1.0), num_steps, 0.574, n)

    return x, jax.jit(move)(random.key(1)), mean, variance


@pytest.mark.parametrize(
    "prior",
    [
        DIFFUSION,
        pytest.param(SCORE, marks=pytest.mark.slow),
        pytest.param(dist.Normal(0, 1).expand([2]).to_event(1), marks=pytest.mark.slow),
    ],
    ids=["diffusion", "score", "density"],
)
def test_moves_leave_the_tempered_posterior_as_it_is(prior):
    x, moved, mean, variance = _moved(prior, 0.2)
    y = np.asarray(moved.points.x)
    n = len(y)
    assert_within(y.mean(axis=0), mean, np.sqrt(variance / n))
    assert_within(y.var(axis=0), variance, variance * np.sqrt(2 / n))
    # The moves are of some length: little is left of where they started.
    assert abs(np.corrcoef(y[:, 0], x[:, 0])[0, 1]) < 0.06
    np.testing.assert_allclose(moved.accept_prob, 0.574, atol=0.05)


def groups(y, group):
    """Counts the groups, for which it must see its data."""
    with numpyro.plate("groups", len(np.unique(np.asarray(group)))):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mean[group], 1), obs=y)


def test_a_model_may_look_at_its_data_and_few_particles_warn():
    smc = ns.TemperedSMC(groups, 5, progress_bar=False)
    with pytest.warns(UserWarning, match="Take more particles, or more num_prior_draws"):
        smc.run(random.key(0), Y, jnp.array([0, 1]))
    assert smc.get_samples()["mean"].shape == (5, 2)
