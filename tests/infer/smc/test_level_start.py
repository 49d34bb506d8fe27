# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Where sites beside diffusion priors begin, given a prior that is all noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer.smc.test_gaussian_twist import MOMENTS
from infer.smc.test_twisted_energies import ENERGY, with_unknown_noise
from infer.smc.twists import OPERATOR, PROCESS
from jax import random
from scipy import stats

from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.gaussian_twist import GaussianTwist
from numpyro_scores.infer.smc.level_sampler import spaced_levels
from numpyro_scores.infer.smc.level_start import steered

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_other_sites_are_drawn_given_the_mean_of_the_prior():
    y, n, sigma = jnp.array([0.6, -0.8]), 2_000, jnp.asarray(PROCESS.sigma_max)
    moments = MOMENTS._replace(covariance=0.01 * np.eye(3), mean=np.array([0.3, 0.4, 0.9]))
    model = FlatModel(with_unknown_noise, (y, ENERGY), {})

    @jax.jit
    def found(key):
        keys = random.split(key, n)
        x = jax.vmap(lambda key: model.draw(key, {}))(keys)
        twist = GaussianTwist(model, moments, sigma, x[0])
        at = steered(key, x, twist, sigma, n)
        return at, jax.vmap(model.constrained)(at.x)

    at, values = found(random.key(0))
    # By quadrature over the noise, which a covariance of the prior is added to.
    noise = np.linspace(1e-3, 5, 4_000)
    residual, added = y - OPERATOR @ moments.mean, 0.01 * OPERATOR @ OPERATOR.T
    p = [stats.multivariate_normal.logpdf(residual, cov=added + s**2 * np.eye(2)) for s in noise]
    p = np.exp(p + stats.halfnorm.logpdf(noise))
    evidence = np.trapezoid(p, noise)
    assert abs(at.log_evidence - np.log(evidence)) < 4 * np.sqrt(at.relative_variance)
    assert at.relative_variance < 0.01 and at.ess > 0.45 * n
    cdf = np.concatenate([[0], np.cumsum((p[1:] + p[:-1]) / 2)]) * (noise[1] - noise[0]) / evidence
    assert stats.kstest(values["noise"], lambda x: np.interp(x, noise, cdf)).statistic < 0.05
    assert np.all(values["x"] == np.float32(moments.mean))


def test_noise_levels_are_few_above_the_spread_and_geometric_below():
    levels = np.asarray(spaced_levels(50.0, 0.02, jnp.array(0.5), 30), float)
    assert levels[0] == 50 and np.float32(levels[-1]) == np.float32(0.02)
    # Its rate in log sigma is the share of the spread in the standard deviation of the sum.
    log_sigma = np.linspace(np.log(50), np.log(0.02), 100_000)
    rate = 0.5 / np.hypot(0.5, np.exp(log_sigma))
    distance = np.concatenate([[0], np.cumsum((rate[1:] + rate[:-1]) / 2)])
    at = np.interp(-np.log(levels), -log_sigma, distance / distance[-1])
    np.testing.assert_allclose(at, np.linspace(0, 1, 30), atol=1e-4)
