# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Particles that go down the noise levels of an energy by its values."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.smc.test_twisted_energies import at_level, energy, linear, with_unknown_noise
from infer.smc.twists import NOISE, OPERATOR, PRIOR, PROCESS, Y
from jax import random
from scipy import stats

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

VARIANCE = 1 + PROCESS.sigma_min**2


def log_marginal(noise):
    covariance = VARIANCE * OPERATOR @ OPERATOR.T + noise**2 * np.eye(2)
    return stats.multivariate_normal.logpdf(Y, np.zeros(2), covariance)


def test_the_posterior_and_the_evidence_of_a_linear_model():
    # Its energy is not normalised, which the evidence has.
    prior = ns.DiffusionPrior(lambda x, sigma: energy(x, sigma) - 0.7, PROCESS, 3)
    sampler = ns.NoiseLevelSMC(linear, 1_000, num_levels=8, num_steps=3, progress_bar=False)
    sampler.run(random.key(0), Y, prior)
    exact = log_marginal(NOISE) + 0.7
    assert abs(sampler.log_evidence - exact) < max(4 * sampler.log_evidence_error, 0.05)
    assert sampler.log_evidence_error < 0.1
    x = np.asarray(sampler.get_samples()["x"])
    mean, covariance = at_level(PROCESS.sigma_min)
    error = 4 * np.sqrt(np.diag(covariance) / len(x))
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - mean), error)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.12)
    # 256 draws of 40 evaluations, a weight and a move at each level, the moves of the end.
    assert sampler.num_grad_evals == 1 + 11 + 7 * 2 + 4


@pytest.mark.slow
def test_unknown_noise_and_its_evidence():
    # By quadrature over the noise.
    noise = np.linspace(1e-3, 5, 4_000)
    p = np.exp([log_marginal(s) for s in noise] + stats.halfnorm.logpdf(noise))
    log_evidence = np.log(np.trapezoid(p, noise))
    cdf = np.concatenate([[0], np.cumsum((p[1:] + p[:-1]) / 2)])
    cdf /= cdf[-1]
    sampler = ns.NoiseLevelSMC(with_unknown_noise, 1_000, num_levels=20, progress_bar=False)
    errors = []
    for seed in range(3):
        sampler.run(random.key(seed), Y)
        errors.append((sampler.log_evidence - log_evidence) / sampler.log_evidence_error)
        draws = np.asarray(sampler.get_samples()["noise"], float)
        assert stats.kstest(draws, lambda x: np.interp(x, noise, cdf)).statistic < 0.07
    assert np.all(np.abs(errors) < 4)


def scaled(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    x = numpyro.sample("x", ns.DiffusionPrior(lambda x, s: energy(x, s) * scale, PROCESS, 3))
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


def test_what_it_cannot_take_is_told():
    with pytest.raises(ValueError, match="prior of 'x' is made of a denoiser, .*TemperedSMC take"):
        ns.NoiseLevelSMC(linear, 10, progress_bar=False).run(random.key(0), Y, PRIOR)
    with pytest.raises(ValueError, match="depend"):
        ns.NoiseLevelSMC(scaled, 10, progress_bar=False).run(random.key(0), jnp.ones(3))
    with pytest.raises(ValueError, match="num_levels must be from 2"):
        ns.NoiseLevelSMC(linear, num_levels=1)
