# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
Samplers on a Gaussian, where each is an affine map of the start and its noise, found exactly; and
log likelihoods along the probability flow.
"""

import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from scipy import stats

import numpyro_scores as ns
from numpyro_scores.samplers import KarrasSpacing, TimeSpacing
from numpyro_scores.samplers.multistep import multistep_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

MEAN, VARIANCE, SIGMA = 0.7, 0.25, 0.05
PROCESS = ns.VarianceExploding(sigma_min=0.01, sigma_max=10.0)


def wiener(x, sigma):
    return MEAN + VARIANCE / (VARIANCE + sigma**2) * (x - MEAN)


@partial(jax.jit, static_argnums=(0, 1))
def moments(sampler, process):
    """The exact mean and variance of draws whose start is of the density at sigma_max."""
    levels = sampler.spacing(process, jnp.asarray(SIGMA), sampler.num_steps + 1)

    def step(carry, sigmas):
        def affine(x, noise):
            return sampler.step(wiener, x, *sigmas, noise)

        mean, variance = carry
        noise = jnp.zeros((sampler.num_noises, 1))
        slope, noises = jax.jacfwd(affine, (0, 1))(mean, noise)
        variance = jnp.sum(slope) ** 2 * variance + jnp.sum(noises**2)
        return (affine(mean, noise), variance), None

    start = (jnp.full((1,), MEAN), jnp.asarray(VARIANCE + process.sigma_max**2))
    (mean, variance), _ = jax.lax.scan(step, start, (levels[:-1], levels[1:]))
    return mean[0], variance


ORDERS = {
    "Heun": (ns.Heun, 2),
    "churn": (partial(ns.Heun, churn=40.0, churn_min=0.1, churn_max=5.0), 1),
    "DDIM": (ns.DDIM, 1),
    "half DDIM": (partial(ns.DDIM, eta=0.5), 1),
    "Ancestral": (ns.Ancestral, 1),
    "ReverseSDE": (ns.ReverseSDE, 1),
}


@pytest.mark.parametrize("spacing", [KarrasSpacing(), TimeSpacing()], ids=["karras", "time"])
@pytest.mark.parametrize("sampler, order", ORDERS.values(), ids=ORDERS)
def test_draws_of_a_gaussian_converge_at_the_stated_order(x64, sampler, order, spacing):
    errors = []
    for num_steps in (200, 400):
        mean, variance = moments(sampler(num_steps, spacing), PROCESS)
        np.testing.assert_allclose(mean, MEAN, rtol=1e-12)
        errors.append(np.log(variance / (VARIANCE + SIGMA**2)))
    assert abs(errors[0]) < 0.1
    if sampler is ORDERS["churn"][0]:
        assert abs(errors[1]) < 0.7 * abs(errors[0])  # the churn of a step shrinks only with N
    else:
        np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.1)


def test_langevin_corrections_leave_their_documented_bias(x64):
    mean, variance = moments(ns.PredictorCorrector(2000, num_corrector_steps=3), PROCESS)
    exact = VARIANCE + SIGMA**2
    np.testing.assert_allclose(mean, MEAN, rtol=1e-10)
    np.testing.assert_allclose(variance, exact, rtol=3e-3)
    # Far from the data, V = sigma^2, and a corrector in balance has V / (1 - h / (2 V)).
    sampler = ns.PredictorCorrector(1, num_corrector_steps=100, signal_to_noise=0.5)
    noises = jnp.zeros((101, 1))
    _, slopes = jax.jacfwd(partial(sampler.step, wiener), (0, 3))(jnp.ones(1), 1.1, 1.0, noises)
    v = VARIANCE + 1
    h = 2 * 0.5**2
    np.testing.assert_allclose(jnp.sum(slopes[..., 1:, :] ** 2), v / (1 - h / 2 / v), rtol=1e-6)


def test_the_steps_of_a_ddpm_are_ancestral(x64):
    # x_{k-1} of Ho, Jain & Abbeel (2020), equation 11, in the coordinates of the chain.
    process = ns.DDPM(50, 1e-3, 0.2)
    betas = np.linspace(1e-3, 0.2, 50)
    abar = np.cumprod(1 - betas)
    k = 30
    levels = TimeSpacing()(process, process.sigma_min, 50)[::-1]
    x, z = np.full(1, 1.3), np.full(1, -0.4)
    epsilon = (x / np.sqrt(abar[k]) - wiener(x / np.sqrt(abar[k]), levels[k])) / levels[k]
    posterior_variance = (1 - abar[k - 1]) / (1 - abar[k]) * betas[k]
    mean = (x - betas[k] / np.sqrt(1 - abar[k]) * epsilon) / np.sqrt(1 - betas[k])
    found = ns.Ancestral().step(wiener, x / np.sqrt(abar[k]), levels[k], levels[k - 1], z[None])
    expected = mean + np.sqrt(posterior_variance) * z
    np.testing.assert_allclose(found * np.sqrt(abar[k - 1]), expected, rtol=1e-9)
    ddim = ns.DDIM(eta=1.0).step(wiener, x, levels[k], levels[k - 1], z[None])
    np.testing.assert_allclose(
        ddim, ns.Ancestral().step(wiener, x, levels[k], levels[k - 1], z[None]), rtol=1e-12
    )


def test_a_step_of_heun_is_the_trapezoidal_rule_after_churn(x64):
    # Of data at zero the flow is linear, and so is each step: one of a churned sampler by hand.
    sampler = ns.Heun(10, churn=2.0, churn_noise=1.1)
    found = sampler.step(lambda x, sigma: 0.5 * x, jnp.ones(1), 2.0, 1.0, jnp.full((1, 1), 3.0))
    raised = 2.0 * 1.2
    x = 1 + 1.1 * np.sqrt(raised**2 - 4) * 3
    euler = x + (1 - raised) * 0.5 * x / raised
    expected = x + (1 - raised) * (0.5 * x / raised + 0.5 * euler) / 2
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_weights_of_several_steps_integrate_polynomials(x64):
    times = np.array([-2.0, -1.2, -0.3, 0.5, 0.7])
    weights = multistep_weights(times, 3)
    nodes, quadrature = np.polynomial.legendre.leggauss(20)
    for i in range(4):
        h = times[i + 1] - times[i]
        s = h * (nodes + 1) / 2
        before = times[max(i - 2, 0) : i + 1][::-1] - times[i]
        for k in range(len(before)):  # the first steps know less
            exact = np.sum(h / 2 * quadrature * np.exp(s - h) * s**k)
            np.testing.assert_allclose(weights[i, : len(before)] @ before**k, exact, rtol=1e-9)
        np.testing.assert_array_equal(weights[i, len(before) :], 0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_several_steps_converge_at_their_order(x64, order):
    # The flow of a Gaussian is affine: from sigma_max it carries one deviation to another.
    start = jnp.asarray([np.sqrt(VARIANCE + PROCESS.sigma_max**2) + MEAN])
    errors = []
    for num_steps in (100, 200):
        sampler = ns.Multistep(num_steps, order=order)
        end = jax.jit(partial(sampler, wiener, PROCESS, key=None))(start, SIGMA)
        errors.append(abs(end[0] - MEAN - np.sqrt(VARIANCE + SIGMA**2)))
        if order == 1:
            ddim = ns.DDIM(num_steps)(wiener, PROCESS, start, SIGMA, key=random.key(0))
            np.testing.assert_allclose(end, ddim, rtol=1e-12)
    assert errors[0] < 0.02
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.3)


PRIOR = ns.DiffusionPrior(wiener, PROCESS, 1, sigma=SIGMA)


@pytest.mark.parametrize(
    "sampler",
    [
        ns.Heun(18),
        pytest.param(ns.Heun(60, churn=20.0), marks=pytest.mark.slow),
        pytest.param(ns.DDIM(60), marks=pytest.mark.slow),
        pytest.param(ns.Ancestral(60), marks=pytest.mark.slow),
        pytest.param(ns.ReverseSDE(60), marks=pytest.mark.slow),
        ns.PredictorCorrector(60),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_draws_of_the_prior_have_the_exact_moments_of_their_affine_map(sampler):
    draw = jax.jit(lambda key: PRIOR.sample(key, (200, 100), sampler=sampler))
    x = np.asarray(draw(random.key(0)), np.float64).ravel()
    mean, variance = moments(sampler, PROCESS)
    assert stats.kstest(x, stats.norm(mean, np.sqrt(variance)).cdf).pvalue > 1e-5


def test_a_prior_has_a_sampler_of_its_own():
    prior = ns.DiffusionPrior(wiener, PROCESS, 1, sampler=ns.Ancestral(4))
    key = random.key(1)
    np.testing.assert_array_equal(
        prior.sample(key), PRIOR.at(0.01).sample(key, (), ns.Ancestral(4))
    )
    assert not np.allclose(prior.sample(key), PRIOR.at(0.01).sample(key))
    assert prior.expand([3]).sample(key).shape == (3, 1)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: PRIOR.sample(random.key(0), (), "heun"), TypeError, r"Heun\(num_steps=18\), got"),
        (lambda: ns.Heun(0), ValueError, "num_steps must be a positive integer"),
        (lambda: ns.Heun(8, "karras"), TypeError, "KarrasSpacing"),
        (lambda: ns.Heun(churn=-1.0), ValueError, "churn must be in"),
        (lambda: ns.Heun(churn_min=2.0, churn_max=1.0), ValueError, "churn_min must be in"),
        (lambda: ns.Multistep(order=5), ValueError, r"order must be in \[1, 4\], got 5"),
        (lambda: ns.Multistep().step(*[None] * 5), TypeError, "draws from a prior alone"),
        (lambda: ns.DDIM(eta=1.5), ValueError, r"eta must be in \[0, 1\], got 1.5"),
        (lambda: ns.PredictorCorrector(num_corrector_steps=0), ValueError, "num_corrector_steps"),
        (lambda: KarrasSpacing(0.0), ValueError, "rho must be a finite positive"),
        (lambda: ns.AdaptiveProbabilityFlow(rtol=0.0), ValueError, "rtol must be"),
    ],
)
def test_bad_samplers_are_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Log likelihoods: a mixture of two Gaussians in three dimensions.

CENTRES = np.array([[-1.0, 0.5, 0.0], [1.0, 0.0, -0.5]])


def mixture_terms(x, sigma):
    return jnp.log(0.5) + norm.logpdf(x, CENTRES, jnp.sqrt(0.09 + sigma**2)).sum(-1)


def mixture_denoiser(x, sigma):
    each = CENTRES + 0.09 / (0.09 + sigma**2) * (x - CENTRES)
    return jax.nn.softmax(mixture_terms(x, sigma)) @ each


POINTS = CENTRES[[0, 1, 0, 1]] + 0.3 * np.random.default_rng(0).normal(size=(4, 3))
FLOWS = [ns.ProbabilityFlow(64), ns.AdaptiveProbabilityFlow()]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: type(flow).__name__)
@pytest.mark.parametrize(
    "process",
    [
        ns.VarianceExploding(0.02, 100.0),
        pytest.param(ns.VariancePreserving(), marks=pytest.mark.slow),
    ],
    ids=lambda process: type(process).__name__,
)
def test_the_log_likelihood_of_a_mixture_is_exact(x64, flow, process):
    prior = ns.DiffusionPrior(mixture_denoiser, process, 3)
    nats, bits = jax.jit(partial(prior.log_likelihood, flow=flow))(POINTS)
    exact = jax.vmap(lambda x: logsumexp(mixture_terms(x, process.sigma_min)))(POINTS)
    np.testing.assert_allclose(nats, exact, atol=0.03)  # 0.01 for each dimension
    np.testing.assert_allclose(bits, -exact / 3 / np.log(2), atol=0.02)


def test_steps_by_diffrax_need_diffrax(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match="pip install diffrax"):
        PRIOR.log_likelihood(np.zeros(1), flow=ns.AdaptiveProbabilityFlow())


def test_the_log_likelihood_with_probes_of_a_key_is_unbiased_for_a_linear_denoiser():
    matrix = np.array([[1.0, 0.5], [0.5, 2.0]])

    def denoiser(x, sigma):
        return matrix @ jnp.linalg.solve(matrix + sigma**2 * jnp.eye(2), x)

    prior = ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.05, 100.0), 2)
    x = np.array([0.3, -1.0])
    flow = ns.ProbabilityFlow(32, ns.HutchinsonTrace(num_probes=1))
    many = jax.jit(partial(prior.log_likelihood, flow=flow))
    found = np.asarray(many(np.tile(x, (2000, 1)), key=random.key(0)).nats)
    exact = stats.multivariate_normal(np.zeros(2), matrix + 0.05**2 * np.eye(2)).logpdf(x)
    assert found.std() > 0.01
    np.testing.assert_allclose(found.mean(), exact, atol=5 * found.std() / np.sqrt(2000) + 1e-3)
    # Without a key all points have the same probes.
    assert len(np.unique(many(np.tile(x, (5, 1))).nats)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: type(flow).__name__)
def test_the_log_likelihood_of_a_mixture_with_random_probes_is_unbiased(x64, flow):
    # The path does not depend on the probes, so neither does the mean of the trace along it.
    process = ns.VarianceExploding(0.02, 100.0)
    prior = ns.DiffusionPrior(mixture_denoiser, process, 3)
    flow = replace(flow, trace=ns.HutchinsonTrace(num_probes=1))
    exact = jax.vmap(lambda x: logsumexp(mixture_terms(x, process.sigma_min)))(POINTS)
    many = jax.jit(partial(prior.log_likelihood, flow=flow))
    errors = many(np.tile(POINTS, (500, 1, 1)), key=random.key(0)).nats - exact
    assert errors.std() > 0.1
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(errors.size)


def test_the_log_likelihood_of_a_gaussian_is_exact():
    # 64 dimensions, whose standard deviations range from 0.3 to 3.
    variances = np.geomspace(0.1, 10.0, 64)
    prior = ns.DiffusionPrior(
        lambda x, sigma: variances / (variances + sigma**2) * x,
        ns.VarianceExploding(0.02, 100.0),
        64,
    )
    x = np.sqrt(variances) * np.random.default_rng(0).normal(size=64)
    exact = stats.norm.logpdf(x, 0, np.sqrt(variances + 0.02**2)).sum()
    nats = jax.jit(prior.log_likelihood)(x).nats
    np.testing.assert_allclose(nats, exact, atol=0.01)  # 0.00016 for each dimension
