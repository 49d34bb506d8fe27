# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sequential Monte Carlo through noise levels whose densities are known by an energy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.smc.twists import NOISE, OPERATOR, PRIOR, PROCESS, Y
from jax import random
from scipy import stats

import numpyro_scores as ns
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.level_moves import LevelTarget, has_energies
from numpyro_scores.infer.smc.twist import DiffusionTwist

pytestmark = pytest.mark.usefixtures("quick_compilation")


def energy(x, sigma):
    """Of `N(0, (1 + sigma^2) I)`."""
    variance = 1 + sigma**2
    return (jnp.sum(x**2) / variance + x.size * jnp.log(2 * jnp.pi * variance)) / 2


ENERGY = ns.DiffusionPrior(energy, PROCESS, 3)


def linear(y, prior=ENERGY):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(OPERATOR @ x, NOISE).to_event(1), obs=y)


def with_unknown_noise(y, prior=ENERGY):
    x = numpyro.sample("x", prior)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(OPERATOR @ x, noise).to_event(1), obs=y)


def at_level(sigma):
    """Mean and covariance of the point of noise `sigma`, given the data of one of `sigma_min`."""
    variance = 1 + PROCESS.sigma_min**2
    total = 1 + sigma**2
    gain = (
        variance
        * OPERATOR.T
        @ np.linalg.inv(variance * OPERATOR @ OPERATOR.T + NOISE**2 * np.eye(2))
    )
    mean = gain @ np.asarray(Y)
    return mean, total * np.eye(3) - variance * gain @ OPERATOR


def test_the_target_of_a_level_is_the_posterior_there(x64):
    sigma = 0.7
    twist = DiffusionTwist(FlatModel(linear, (Y,), {}))
    mean, covariance = at_level(sigma)
    exact = dist.MultivariateNormal(mean, covariance)
    x = np.random.default_rng(0).normal(size=(5, 3))
    target = LevelTarget(twist, jnp.asarray(sigma))
    points = jax.jit(jax.vmap(lambda x: target.at(x, jnp.zeros(()))))(x)
    difference = np.asarray(points.energy + exact.log_prob(x))
    np.testing.assert_allclose(difference, difference[0], rtol=1e-5)
    grad = jax.vmap(jax.grad(lambda x: -exact.log_prob(x)))(x)
    np.testing.assert_allclose(points.grad, grad, rtol=1e-5, atol=1e-5)


def test_energies_are_told_from_denoisers():
    x = jnp.zeros(3)
    assert has_energies(FlatModel(linear, (Y,), {}), x)
    assert not has_energies(FlatModel(linear, (Y, PRIOR), {}), x)


@pytest.mark.slow
def test_the_posterior_and_the_evidence_with_unknown_noise():
    # By quadrature over the noise.
    noise = np.linspace(1e-3, 5, 4_000)
    variance = 1 + PROCESS.sigma_min**2
    marginal = variance * OPERATOR @ OPERATOR.T
    log_p = np.array(
        [
            stats.multivariate_normal.logpdf(Y, np.zeros(2), marginal + s**2 * np.eye(2))
            for s in noise
        ]
    ) + stats.halfnorm.logpdf(noise)
    p = np.exp(log_p)
    log_evidence = np.log(np.trapezoid(p, noise))
    cdf = np.concatenate([[0], np.cumsum((p[1:] + p[:-1]) / 2)])
    cdf /= cdf[-1]
    sampler = ns.TwistedDiffusionSampler(
        with_unknown_noise, num_particles=1_000, num_levels=8, progress_bar=False
    )
    errors = []
    for seed in range(3):
        sampler.run(random.key(seed), Y)
        errors.append((sampler.log_evidence - log_evidence) / sampler.log_evidence_error)
        draws = np.asarray(sampler.get_samples()["noise"], float)
        assert stats.kstest(draws, lambda x: np.interp(x, noise, cdf)).statistic < 0.07
    assert np.all(np.abs(errors) < 4)
