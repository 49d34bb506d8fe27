# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""MALA: detailed balance point by point, the closed-form acceptance, and posteriors end to end."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_no_rejection, assert_within, draw, mean_and_error
from jax import random
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from scipy import stats

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

COVARIANCE = np.array([[2.0, 1.1, 0.0], [1.1, 1.0, -0.2], [0.0, -0.2, 0.3]])


def bent(x):
    """A density without symmetry, with every pair of coordinates coupled."""
    return x @ np.linalg.inv(COVARIANCE) @ x / 2 + jnp.sum(jnp.cos(x)) + jnp.sum(x) ** 4 / 100


ENERGY, GRADIENT = jax.jit(bent), jax.jit(jax.grad(bent))

METRICS = {
    "identity": dict(adapt_mass_matrix=False, adapt_step_size=False),
    "given": dict(
        adapt_mass_matrix=False,
        adapt_step_size=False,
        dense_mass=True,
        inverse_mass_matrix=COVARIANCE,
    ),
    "diagonal": dict(),
    "dense": dict(dense_mass=True),
}


@pytest.fixture(scope="module")
def warm():
    """A kernel and its state after warmup, by metric."""
    cache = {}

    def warmed(metric):
        if metric not in cache:
            kernel = ns.MALA(potential_fn=bent, step_size=0.3, num_steps=1, **METRICS[metric])
            mcmc = MCMC(kernel, num_warmup=150, num_samples=1, progress_bar=False)
            mcmc.run(random.key(0), init_params=jnp.zeros(3))
            cache[metric] = kernel, mcmc.last_state
        return cache[metric]

    return warmed


class Step:
    """One step of a kernel with chosen random numbers, and its proposal by the formula."""

    def __init__(self, kernel, state, monkeypatch):
        self.h = float(state.adapt_state.step_size)
        inverse_metric = np.asarray(state.adapt_state.inverse_mass_matrix)
        self.inverse_metric = (
            inverse_metric if inverse_metric.ndim == 2 else np.diag(inverse_metric)
        )

        @jax.jit
        def sample(x, noise, uniform):
            for name, value in [("normal", noise), ("uniform", uniform)]:
                monkeypatch.setattr(
                    random, name, lambda _, shape, __, value=value: jnp.broadcast_to(value, shape)
                )
            energy, grad = jax.value_and_grad(bent)(x)
            return kernel.sample(state._replace(z=x, potential_energy=energy, z_grad=grad), (), {})

        self.sample = sample

    def proposal(self, x):
        """N(x - h M^-1 grad U(x), 2 h M^-1), independent of the kernel's own arithmetic."""
        mean = x - self.h * self.inverse_metric @ np.asarray(GRADIENT(x))
        return stats.multivariate_normal(mean, 2 * self.h * self.inverse_metric)

    def __call__(self, x, noise, uniform=0.0):
        """Where the step from `x` ends, and its acceptance probability."""
        new = self.sample(x, noise, uniform)
        np.testing.assert_allclose(new.potential_energy, ENERGY(new.z), rtol=1e-13)
        np.testing.assert_allclose(new.z_grad, GRADIENT(new.z), rtol=1e-12, atol=1e-12)
        return np.asarray(new.z), float(new.accept_prob)


@pytest.mark.parametrize("metric", METRICS)
def test_detailed_balance(x64, monkeypatch, warm, metric):
    """pi(x) q(y | x) a(x, y) = pi(y) q(x | y) a(y, x), with a and y from the kernel itself."""
    step = Step(*warm(metric), monkeypatch)
    if metric == "given":
        np.testing.assert_allclose(step.inverse_metric, COVARIANCE, rtol=1e-15)
    elif metric == "dense":
        assert np.abs(step.inverse_metric[0, 1]) > 0.01
    rng = np.random.default_rng(0)
    acceptances = []
    for _ in range(5):
        x = rng.normal(size=3)
        # The step is affine in the noise: recover its factor from the kernel, B B^T = 2 h M^-1.
        mean = step(x, np.zeros(3))[0]
        factor = np.transpose([step(x, e)[0] - mean for e in np.eye(3)])
        np.testing.assert_allclose(mean, step.proposal(x).mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(
            factor @ factor.T, 2 * step.h * step.inverse_metric, rtol=1e-11, atol=1e-13
        )
        y, forward = step(x, 2 * rng.normal(size=3))
        noise_back = np.linalg.solve(factor, x - step.proposal(y).mean)
        back, backward = step(y, noise_back)
        np.testing.assert_allclose(back, x, atol=1e-12)
        log_ratio = (
            float(ENERGY(x) - ENERGY(y)) + step.proposal(y).logpdf(x) - step.proposal(x).logpdf(y)
        )
        np.testing.assert_allclose(forward, min(1.0, np.exp(log_ratio)), rtol=1e-11)
        np.testing.assert_allclose(np.log(forward / backward), log_ratio, atol=1e-12)
        acceptances += [forward, backward]
    assert min(acceptances) < 0.9 and 1.0 in acceptances  # both sides of the minimum


def test_a_rejected_proposal_leaves_the_chain_where_it_was(x64, monkeypatch, warm):
    step = Step(*warm("diagonal"), monkeypatch)
    x, noise = np.array([0.4, -0.3, 0.2]), np.full(3, 2.5)
    _, accept_prob = step(x, noise)
    assert 0 < accept_prob < 0.999
    assert np.all(step(x, noise, uniform=accept_prob * (1 - 1e-9))[0] != x)
    np.testing.assert_array_equal(step(x, noise, uniform=accept_prob * (1 + 1e-9))[0], x)


@pytest.mark.parametrize(
    "d, variance, acceptance",
    [
        (10, 1.650302**2 * 10 ** (-1 / 3), 0.58661),
        (10, 1.0, 0.70093),
        (100, 1.650302**2 * 100 ** (-1 / 3), 0.57549),
        (100, None, 0.57549),  # the default step is the optimal one on a Gaussian
    ],
)
def test_mean_acceptance_at_stationarity(d, variance, acceptance):
    """In closed form on a standard normal; a mean that is off by 0.006 is found."""
    num_chains = 40_000
    kernel = ns.MALA(
        potential_fn=lambda x: jnp.sum(x**2) / 2,
        step_size=None if variance is None else variance / 2,
        num_steps=1,
        adapt_step_size=False,
    )
    z = random.normal(random.key(0), (num_chains, d))
    accept_prob = np.asarray(draw(kernel, random.key(1), num_chains, z).accept_prob, np.float64)
    assert_within(accept_prob.mean(), acceptance, accept_prob.std() / num_chains**0.5)


def test_a_mixture_is_stationary():
    """
    Exact draws, moved by 5 steps: every distribution function is that of the mixture. With 10^5
    independent draws an error of 0.01 is found, and a mean that is off by 0.02 standard deviations.
    """
    n = 100_000
    means, scales = np.array([[1.0, 0.0], [-1.0, 2.0]]), np.array([0.7, 1.0])
    weights = np.array([0.7, 0.3])

    def potential_fn(x):
        log_densities = -jnp.sum((x - means) ** 2, -1) / (2 * scales**2) - 2 * jnp.log(scales)
        return -jax.scipy.special.logsumexp(log_densities + jnp.log(weights))

    kernel = ns.MALA(potential_fn=potential_fn, step_size=0.4, num_steps=5, adapt_step_size=False)
    key_component, key_noise, key = random.split(random.key(0), 3)
    k = random.categorical(key_component, jnp.log(weights), shape=(n,))
    z = means[k] + scales[k, None] * random.normal(key_noise, (n, 2))
    state = draw(kernel, key, n, z)
    x = np.asarray(state.z, np.float64)
    assert np.mean(np.any(x != np.asarray(z), axis=1)) > 0.9  # they did move
    assert 0.4 < state.accept_prob.mean() < 0.95
    pvalues = {}
    for name, axis in {"x": (1, 0), "y": (0, 1), "x + y": (0.8, 0.6), "x - y": (0.8, -0.6)}.items():
        centres = means @ axis

        def cdf(t, centres=centres):
            return stats.norm.cdf((t[:, None] - centres) / scales) @ weights

        u = x @ axis
        mean = weights @ centres
        second = weights @ (centres**2 + scales**2)
        fourth = weights @ (centres**4 + 6 * centres**2 * scales**2 + 3 * scales**4)
        z_mean = (u.mean() - mean) / np.sqrt((second - mean**2) / n)
        z_second = (np.mean(u**2) - second) / np.sqrt((fourth - second**2) / n)
        pvalues[f"{name}: distribution"] = stats.kstest(u, cdf).pvalue
        pvalues[f"{name}: mean"] = 2 * stats.norm.sf(abs(z_mean))
        pvalues[f"{name}: second moment"] = 2 * stats.norm.sf(abs(z_second))
    assert_no_rejection(pvalues)


@pytest.mark.parametrize(
    "d", [pytest.param(1, marks=pytest.mark.slow), 10, pytest.param(100, marks=pytest.mark.slow)]
)
def test_a_prior_known_by_its_score_has_the_right_variance(d):
    """A `log_prob` of zero with the right gradient would give 22.5, 11.4 and 4.1 under NUTS."""
    num_chains = 200

    def model():
        numpyro.sample("x", ns.ScoreDistribution(jnp.negative, d))

    mcmc = MCMC(
        ns.MALA(model, num_steps=5),
        num_warmup=200,
        num_samples=60,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(d))
    x = mcmc.get_samples(group_by_chain=True)["x"]
    second_moment, error = mean_and_error(np.mean(np.square(x), axis=-1))
    assert error < 0.02
    assert_within(second_moment, 1.0, error)


def test_fields_of_vectorized_chains():
    """Each chain has its own, the counter of draws included."""
    mcmc = MCMC(
        ns.MALA(potential_fn=lambda x: jnp.sum(x**2) / 2, num_steps=1),
        num_warmup=2,
        num_samples=3,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    fields = ("i", "potential_energy", "accept_prob", "adapt_state.step_size")
    mcmc.run(random.key(0), init_params=jnp.ones((2, 4)), extra_fields=fields)
    collected = mcmc.get_extra_fields(group_by_chain=True)
    assert {field: collected[field].shape for field in fields} == dict.fromkeys(fields, (2, 3))
    np.testing.assert_array_equal(collected["i"], [[3, 4, 5], [3, 4, 5]])
    energies = np.sum(np.square(mcmc.get_samples(group_by_chain=True)), axis=-1) / 2
    np.testing.assert_allclose(collected["potential_energy"], energies, rtol=1e-5)


@pytest.mark.slow
def test_the_posterior_is_that_of_nuts():
    """A regression with a positive scale: means and second moments within 4 combined errors."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    y = x @ np.array([1.0, -0.5]) + 0.7 + 0.6 * rng.normal(size=20)

    def model(x, y=None):
        intercept = numpyro.sample("intercept", dist.Normal(0, 2))
        slopes = numpyro.sample("slopes", dist.Normal(0, 1).expand([2]).to_event(1))
        scale = numpyro.sample("scale", dist.HalfNormal(1))
        numpyro.deterministic("signal to noise", jnp.linalg.norm(slopes) / scale)
        numpyro.sample("y", dist.Normal(intercept + x @ slopes, scale), obs=y)

    def posterior(kernel):
        mcmc = MCMC(
            kernel,
            num_warmup=500,
            num_samples=500,
            num_chains=8,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(random.key(0), x, y)
        draws = mcmc.get_samples(group_by_chain=True)
        assert set(draws) == {"intercept", "slopes", "scale", "signal to noise"}
        return {
            (name, power): (
                np.mean(value**power, axis=(0, 1)),
                np.std(value**power, axis=(0, 1)) / effective_sample_size(value**power) ** 0.5,
            )
            for name, value in ((n, np.asarray(v, np.float64)) for n, v in draws.items())
            for power in (1, 2)
        }

    ours, theirs = posterior(ns.MALA(model)), posterior(NUTS(model))
    for moment, (mean, error) in ours.items():
        reference, reference_error = theirs[moment]
        assert_within(mean, reference, np.hypot(error, reference_error))


def test_the_step_size_is_a_field_under_one_name():
    mcmc = MCMC(
        ns.MALA(potential_fn=lambda z: jnp.sum(z**2) / 2, step_size=0.3, adapt_step_size=False),
        num_warmup=0,
        num_samples=3,
        progress_bar=False,
    )
    mcmc.run(random.key(0), init_params=jnp.zeros(2), extra_fields=("step_size",))
    np.testing.assert_allclose(mcmc.get_extra_fields()["step_size"], 0.3)
