# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Ranks, bands and coverage with known answers; kernels that are right, and broken on purpose."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from jax import random

import numpyro_scores as ns
from numpyro_scores.diagnostics.calibration import ranks

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
RNG = np.random.default_rng(0)
SIMULATIONS, DRAWS = 400, 39


def conjugate(scale=1.0, shift=0.0):
    """Truths from N(0, I) and draws of their posterior given y = x + noise, wrong as told."""
    truth = RNG.normal(size=(SIMULATIONS, 2))
    y = truth + RNG.normal(size=truth.shape)
    noise = RNG.normal(size=(SIMULATIONS, DRAWS, 2))
    return y[:, None] / 2 + shift + scale * np.sqrt(0.5) * noise, truth


def model():
    x = numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x, 0.7).to_event(1))


@dataclass(frozen=True)
class HalfTheNoise(ns.integrators.OverdampedIntegrator):
    """Broken on purpose."""

    def step(self, state, noise, gradient, step_size):
        x = ns.integrators.euler_maruyama(state.x, state.grad, step_size, noise[0] / 2)
        return ns.integrators.IntegratorState(x, gradient(x), None)


def langevin(integrator, **kwargs):
    return lambda model: ns.OverdampedLangevin(model, integrator=integrator, **kwargs)


def test_ranks_count_the_draws_below_and_break_ties_by_chance():
    draws = np.array([[[0.0], [1.0], [2.0]]] * 4_000)
    truth = np.full((4_000, 1), 1.0)
    found = ranks.ranks_among(draws, truth, KEY)
    assert set(np.unique(found)) == {1, 2}
    assert abs(np.mean(found) - 1.5) < 4 * 0.5 / np.sqrt(4_000)


def test_the_statistic_is_the_least_tail_of_the_cumulated_counts():
    values = np.array([0, 0, 0, 1, 2, 2, 0, 0, 3, 1])
    found = ranks.uniformity(values, 4)
    tails = []
    for r in range(3):
        count = np.sum(values <= r)
        binom = scipy.stats.binom(10, (r + 1) / 4)
        tails.append(2 * min(binom.cdf(count), 1 - binom.cdf(count - 1)))
    np.testing.assert_allclose(found.statistic, min(tails), rtol=1e-12)
    np.testing.assert_allclose(found.ecdf, [0.5, 0.7, 0.9, 1.0])


def test_the_p_values_of_uniform_ranks_are_uniform_and_the_bands_hold_them():
    values = RNG.integers(20, size=(200, 2_000))
    found = ranks.uniformity(values, 20)
    alarms = np.mean(found.p_value <= 0.05)
    assert abs(alarms - 0.05) < 4 * np.sqrt(0.05 * 0.95 * 2 / 2_000)
    inside = (found.lower[:, None] <= found.ecdf) & (found.ecdf <= found.upper[:, None])
    outside = ~inside.all(axis=0)
    np.testing.assert_array_equal(outside, found.statistic <= np.max(found.statistic[outside]))
    assert abs(np.mean(inside.all(axis=0)) - 0.95) < 4 * np.sqrt(0.05 * 0.95 * 2 / 2_000)


def test_a_right_posterior_has_the_coverage_of_its_intervals():
    found = ns.diagnostics.coverage(*conjugate(), key=KEY, levels=[0.5, 0.9])
    np.testing.assert_allclose(found.levels, [0.5, 0.9])
    assert np.all(
        np.abs(found.coverage - found.levels[:, None]) < 4 * found.standard_error[:, None]
    )
    assert np.all(found.p_value > 0.001) and found.p_value.shape == (2,)


def test_the_interval_of_a_simulation_is_between_its_order_statistics():
    draws, truth = conjugate()
    found = ns.diagnostics.coverage(draws, truth, key=KEY, levels=[0.5, 0.9])
    ordered = np.sort(draws, axis=1)
    # Of 40 places among 39 draws the middle 20, and the middle 36.
    for inside, i in zip(found.inside, (9, 1), strict=True):
        expected = (ordered[:, i] < truth) & (truth < ordered[:, -1 - i])
        np.testing.assert_array_equal(inside, expected)
    np.testing.assert_array_equal(found.coverage, found.inside.mean(axis=1))


def test_a_narrow_posterior_covers_less_by_what_theory_says():
    found = ns.diagnostics.coverage(*conjugate(scale=0.5), key=KEY, levels=[0.9])
    # Order statistics of 39 draws, the second from either end, in place of the true quantiles.
    u = (np.arange(1, 40) / 40)[1]
    exact = 2 * scipy.stats.norm.cdf(0.5 * -scipy.stats.norm.ppf(u)) - 1
    assert np.all(np.abs(found.coverage - exact) < 4 * np.sqrt(0.25 / SIMULATIONS) + 0.02)
    assert np.all(found.p_value < 0.001)


def test_tarp_passes_a_right_posterior_and_fails_wrong_ones():
    assert ns.diagnostics.tarp(*conjugate(), key=KEY).p_value > 0.001
    assert ns.diagnostics.tarp(*conjugate(scale=0.5), key=KEY).p_value < 0.001
    assert ns.diagnostics.tarp(*conjugate(shift=0.8), key=KEY).p_value < 0.001


def test_tarp_counts_the_draws_closer_to_the_reference():
    draws, truth = conjugate()
    references = RNG.normal(size=truth.shape)
    found = ns.diagnostics.tarp(draws, truth, key=KEY, references=references)
    scale = np.ptp(truth, axis=0)
    near = np.linalg.norm((draws - references[:, None]) / scale, axis=2)
    own = np.linalg.norm((truth - references) / scale, axis=1)
    np.testing.assert_array_equal(found.ranks, np.sum(near < own[:, None], axis=1))


@pytest.mark.slow
def test_simulation_based_calibration_catches_a_kernel_with_half_the_noise():
    settings = dict(
        observed=("y",), key=KEY, num_simulations=200, num_draws=31, num_warmup=5, batch_size=150
    )
    # Leimkuhler-Matthews has the right variance on a Gaussian at any step size.
    right = langevin(ns.LeimkuhlerMatthews(), step_size=0.1, num_steps=20)
    found = ns.diagnostics.simulation_based_calibration(model, right, **settings)
    assert found.p_value > 0.001
    assert found.sites["x"].ranks.shape == (200, 2)
    broken = langevin(HalfTheNoise(), step_size=0.1, num_steps=20)
    found = ns.diagnostics.simulation_based_calibration(
        model, broken, progress_bar=False, **settings
    )
    assert found.p_value < 0.01
    assert np.all(found.sites["x"].coverage[2] < 0.8)


@pytest.mark.slow
def test_the_joint_distribution_test_catches_a_kernel_with_half_the_noise():
    settings = dict(observed=("y",), key=KEY, num_chains=400, num_rounds=5)
    found = ns.diagnostics.geweke_test(
        model, lambda model: ns.MALA(model, step_size=0.1, num_steps=5), **settings
    )
    assert found.p_value > 0.001
    broken = langevin(HalfTheNoise(), step_size=0.1, num_steps=5)
    found = ns.diagnostics.geweke_test(model, broken, **settings)
    assert found.p_value < 0.01
    # The variance is too small, the mean is not.
    assert np.all(found.second["x"] < -4) and np.all(np.abs(found.first["x"]) < 4)


def test_the_joint_distribution_test_catches_a_kernel_that_ignores_the_data():
    def prior(data):
        numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))

    found = ns.diagnostics.geweke_test(
        model,
        lambda _: ns.MALA(prior, step_size=0.5, num_steps=5),
        observed=("y",),
        key=KEY,
        num_chains=200,
        num_rounds=2,
    )
    # Of each site alone all is as it should be.
    assert found.p_value < 0.01 and found.log_joint < -4
    assert np.all(np.abs(found.second["x"]) < 4) and np.all(np.abs(found.second["y"]) < 4)


def test_importance_sampling_finds_the_marginal_likelihood_of_a_normal_model():
    points = np.array([[0.5], [-2.0]])
    found = ns.diagnostics.importance_log_likelihood(
        lambda z, y: (dist.Normal(0, 1).log_prob(z) + dist.Normal(z, 1).log_prob(y)).sum(),
        lambda y: dist.Normal(y / 2, 1.0).to_event(1),
        points,
        key=KEY,
    )
    exact = scipy.stats.norm.logpdf(points[:, 0], scale=np.sqrt(2))
    assert np.all(np.abs(found.log_likelihood - exact) < 4 * found.standard_error)
    assert np.all(found.standard_error < 0.05)
    # For a proposal of variance s2 = 1 about a posterior of variance v = 1/2 the effective share
    # is v / s2 sqrt(2 s2 / v - 1).
    share = np.sqrt(3) / 2
    np.testing.assert_allclose(found.effective_sample_size / 1_000, share, rtol=0.1)


def test_log_weights_in_closed_form():
    found = ns.diagnostics.log_mean_weight(jnp.log(jnp.array([1.0, 2.0, 3.0])) + 500.0)
    np.testing.assert_allclose(found.log_likelihood, np.log(2.0) + 500, rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, 1 / (2 * np.sqrt(3)), rtol=1e-4)
    np.testing.assert_allclose(found.effective_sample_size, 36 / 14, rtol=1e-4)


def test_the_kernel_density_is_that_of_a_loop_and_its_bandwidth_held_out(x64):
    x, y = RNG.normal(size=(20, 2)) + 30, RNG.normal(size=(5, 2)) + 30
    bandwidths = [0.2, 0.5, 1.0]

    def log_density(point, centres, h):
        return np.log(
            np.mean([scipy.stats.multivariate_normal(c, h**2).pdf(point) for c in centres])
        )

    held_out = [
        np.mean([log_density(x[i], np.delete(x, i, 0), h) for i in range(20)]) for h in bandwidths
    ]
    best = bandwidths[np.argmax(held_out)]
    found = ns.diagnostics.kernel_density_log_likelihood(x, y, bandwidths=bandwidths, block_size=8)
    assert found.bandwidth == best
    exact = [log_density(point, x, best) for point in y]
    np.testing.assert_allclose(found.log_prob, exact, rtol=1e-10)
    np.testing.assert_allclose(found.value, np.mean(exact), rtol=1e-10)
    np.testing.assert_allclose(found.standard_error, scipy.stats.sem(exact), rtol=1e-10)


def test_the_kernel_density_of_many_samples_is_near_the_density():
    x, y = RNG.normal(size=(1_000, 1)), RNG.normal(size=(300, 1))
    found = ns.diagnostics.kernel_density_log_likelihood(x, y)
    exact = scipy.stats.norm.logpdf(y[:, 0])
    assert abs(np.mean(found.log_prob - exact)) < 0.05
    assert 0.1 < found.bandwidth < 0.5


def test_entries_of_a_batch_are_parts_of_one_latent_value():
    """`Normal(mean, scale)` of vectors proposes what its `to_event(1)` does."""
    y = RNG.normal(size=(3, 2)).astype(np.float32)

    def log_joint(z, y):
        return dist.Normal(0, 1).log_prob(z).sum() + dist.Normal(z, 0.5).log_prob(y).sum()

    def proposal(y):
        return dist.Normal(0.8 * y, 0.6)

    found = ns.diagnostics.importance_log_likelihood(log_joint, proposal, y, key=KEY)
    exact = scipy.stats.norm.logpdf(y, 0, np.sqrt(1.25)).sum(axis=1)
    assert found.log_likelihood.shape == (3,)
    assert np.all(np.abs(found.log_likelihood - exact) < 4 * found.standard_error)
    with pytest.raises(ValueError, match=r"one number for one z .* got shape \(2,\)"):
        ns.diagnostics.importance_log_likelihood(
            lambda z, y: dist.Normal(z, 0.5).log_prob(y), proposal, y, key=KEY
        )


def test_what_cannot_be_judged_is_refused():
    draws, truth = conjugate()
    for judge in (ns.diagnostics.coverage, ns.diagnostics.tarp):
        with pytest.raises(ValueError, match=r"got \(400, 39, 2\) and \(400, 1\)"):
            judge(draws, truth[:, :1], key=KEY)
        with pytest.raises(ValueError, match="At least 10 simulations"):
            judge(draws[:3], truth[:3], key=KEY)
        with pytest.raises(ValueError, match="At least 10 simulations"):
            judge(draws[:0], truth[:0], key=KEY)
        with pytest.raises(ValueError, match="those of 1 of 400 simulations are not, the first"):
            judge(np.where(np.arange(400)[:, None, None] == 7, np.nan, draws), truth, key=KEY)
    with pytest.raises(ValueError, match="levels must be numbers between 0 and 1"):
        ns.diagnostics.coverage(draws, truth, key=KEY, levels=[95])
    with pytest.raises(ValueError, match="bandwidths must be a sequence of positive"):
        ns.diagnostics.kernel_density_log_likelihood(truth, truth, bandwidths=[0.0])
    with pytest.raises(ValueError, match="at least 2 weights along its last axis, got 1"):
        ns.diagnostics.log_mean_weight(np.zeros((3, 1)))
    for judge in (ns.diagnostics.simulation_based_calibration, ns.diagnostics.geweke_test):
        with pytest.raises(ValueError, match=r"got \['z'\], where the model draws \['x', 'y'\]"):
            judge(model, ns.MALA, observed=["z"], key=KEY)
        with pytest.raises(ValueError, match="observed must be a sequence of site names, got 'y'"):
            judge(model, ns.MALA, observed="y", key=KEY)


def test_a_model_that_is_given_its_data_is_refused():
    def observes():
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(x, 1), obs=jnp.array(0.3))

    with pytest.raises(ValueError, match=r"got \['y'\], where the model draws \['x'\]"):
        ns.diagnostics.geweke_test(observes, ns.MALA, observed=["y"], key=KEY)
