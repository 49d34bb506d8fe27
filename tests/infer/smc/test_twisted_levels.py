# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Twisted sequential Monte Carlo of several priors, and of data that are hard to twist for."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within
from infer.smc.twists import NOISE, OPERATOR, PRIOR, Y, denoise, given_noise, unmoved
from jax import random

import numpyro_scores as ns
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.twist import DiffusionTwist

# Much is compiled here, for little to be computed.
pytestmark = pytest.mark.usefixtures("quick_compilation")

OTHER_PRIOR = ns.DiffusionPrior(denoise, ns.VarianceExploding(0.1, 80.0), 3).at(1.0)


def two_priors(y):
    """One of noise levels from 50 to 0.02, one from 80 to 1."""
    a, b = numpyro.sample("a", PRIOR), numpyro.sample("b", OTHER_PRIOR)
    numpyro.sample("y", dist.Normal(OPERATOR @ (a + b), NOISE).to_event(1), obs=y)


@pytest.mark.parametrize(
    "sigma, levels", [(60.0, (50.0, 60.0)), (3.0, (3.0, 3.0)), (0.5, (0.5, 1.0))]
)
def test_each_prior_keeps_within_its_levels(sigma, levels):
    twist = DiffusionTwist(FlatModel(two_priors, (Y,), {}))
    x = jnp.array([0.3, -1.0, 2.0, 1.0, 0.0, -0.5])
    found = np.repeat(np.array(levels), 3)
    np.testing.assert_allclose(twist.levels(x, sigma), found, rtol=1e-6)
    np.testing.assert_allclose(twist.denoised(x, sigma), x / (1 + found**2), rtol=1e-5)
    # Where a prior stays at its level the flow leaves its value.
    moved = np.abs(twist.flow(x, sigma, 0.9 * sigma) - x) > 1e-6
    changed = (found < [50.0] * 3 + [80.0] * 3) & (found > [0.02] * 3 + [1.0] * 3)
    np.testing.assert_array_equal(moved, changed & (np.asarray(x) != 0))
    of_a = given_noise(x[:3], levels[0], 0.02)
    of_b = given_noise(x[3:], levels[1], 1.0)
    mean, variance = (a + b for a, b in zip(of_a, of_b, strict=True))
    covariance = variance * OPERATOR @ OPERATOR.T + NOISE**2 * np.eye(2)
    exact = dist.MultivariateNormal(OPERATOR @ mean, covariance).log_prob(Y)
    energy = unmoved(FlatModel(two_priors, (Y,), {}), x, sigma).energy
    np.testing.assert_allclose(-energy, exact, rtol=1e-4)


@pytest.mark.slow
def test_priors_of_several_levels_have_their_joint_posterior():
    sampler = ns.TwistedDiffusionSampler(two_priors, 2_000, progress_bar=False)
    sampler.run(random.key(0), Y)
    # The value of the other prior has the noise of its level.
    covariance = np.diag(np.repeat([1.0, 2.0], 3))
    operator = np.hstack([OPERATOR, OPERATOR])
    marginal = operator @ covariance @ operator.T + NOISE**2 * np.eye(2)
    gain = np.linalg.solve(marginal, operator @ covariance).T
    sd = np.sqrt(np.diag(covariance - gain @ operator @ covariance))
    draws = sampler.get_samples()
    x = np.hstack([draws["a"], draws["b"]])
    assert_within(x.mean(axis=0), gain @ np.asarray(Y), sd / np.sqrt(400))
    assert_within(x.std(axis=0), sd, sd / np.sqrt(800))
    exact = dist.MultivariateNormal(np.zeros(2), marginal).log_prob(Y)
    assert_within(sampler.log_evidence, float(exact), sampler.log_evidence_error)
    assert sampler.log_evidence_error < 0.15


def test_another_range_of_levels_asks_for_other_programs():
    def model(level):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", PRIOR.at(level)), 1.0), obs=Y[0])

    sampler = ns.TwistedDiffusionSampler(model, 10)
    for level in (1.0, 2.0):
        sampler._look((jnp.array(level),), {}, {})
        assert sampler._levels[-1] == level and sampler._programs is None
        sampler._programs = ((), ())
        sampler._look((jnp.array(level),), {}, {})
        assert sampler._programs is not None


def test_one_number_may_be_the_data_of_many():
    def model(y):
        numpyro.sample("y", dist.Normal(OPERATOR @ numpyro.sample("x", PRIOR), NOISE), obs=y)

    x = jnp.array([0.3, -1.0, 2.0])
    one, many = (unmoved(FlatModel(model, (y,), {}), x, 1.5) for y in (0.7, jnp.full(2, 0.7)))
    np.testing.assert_allclose(one.energy, many.energy)


def test_rounding_does_not_make_a_twist_zero():
    """Alike measurements of a wide prior, with a noise far below what `float32` resolves of it."""
    wide_prior = ns.DiffusionPrior(
        lambda x, sigma: x / (1 + 1e-4 * sigma**2), ns.VarianceExploding(0.02, 500.0), 2
    )

    def model(y):
        x = numpyro.sample("x", wide_prior)
        numpyro.sample("y", dist.Normal(jnp.repeat(x, 3), 0.01).to_event(1), obs=y)

    point = unmoved(FlatModel(model, (jnp.full(6, 100.0),), {}), jnp.ones(2), 500.0)
    assert np.isfinite(point.energy)
