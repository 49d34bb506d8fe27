# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Bounds and estimates of the evidence of a linear decoder, which is known."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import random
from jax.tree_util import Partial

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
WEIGHTS = jnp.array([[1.0, 0.5], [-0.3, 0.8], [0.2, 2.0]])
BIAS = jnp.array([0.5, -1.0, 0.0])
NOISE = 0.6
Y = jnp.array([[1.0, -0.5, 2.0], [0.0, -1.0, -3.0], [0.5, -1.0, 0.0]])
COVARIANCE = jnp.linalg.inv(jnp.eye(2) + WEIGHTS.T @ WEIGHTS / NOISE**2)  # of the posterior
EXACT = dist.MultivariateNormal(BIAS, WEIGHTS @ WEIGHTS.T + NOISE**2 * jnp.eye(3)).log_prob(Y)


def decode(weights, z):
    return weights @ z + BIAS


def log_joint(z, y):
    return ns.GeneratorPrior(Partial(decode, WEIGHTS), 2).log_joint(z, y, NOISE)


def posterior_mean(y):
    return COVARIANCE @ WEIGHTS.T @ (y - BIAS) / NOISE**2


def encoder(y):
    """Independent entries, as an encoder has them, too wide."""
    return dist.Normal(posterior_mean(y), 1.3 * jnp.sqrt(jnp.diagonal(COVARIANCE)))


def prior(y):
    return dist.Normal(jnp.zeros(2), 1.0)


def test_the_bounds_are_ordered_and_the_lower_one_is_short_by_the_divergence():
    found = ns.diagnostics.evidence_bounds(log_joint, encoder, Y, key=KEY, num_draws=4_000)
    scales = 1.3 * jnp.sqrt(jnp.diagonal(COVARIANCE))
    precision = jnp.linalg.inv(COVARIANCE)
    divergence = 0.5 * (
        jnp.sum(jnp.diagonal(precision) * scales**2)
        - 2
        + jnp.linalg.slogdet(COVARIANCE)[1]
        - 2 * jnp.sum(jnp.log(scales))
    )
    assert divergence > 0.1
    assert np.all(np.abs(found.elbo - EXACT + divergence) < 4 * found.elbo_standard_error)
    assert np.all(found.elbo < found.importance_weighted)
    np.testing.assert_allclose(found.importance_weighted, EXACT, atol=0.05)
    assert np.all(found.standard_error < 0.05)


def test_annealing_from_the_prior_finds_the_evidence():
    found = ns.diagnostics.annealed_log_likelihood(
        log_joint, prior, Y, key=KEY, step_size=0.2, num_draws=128, num_levels=300
    )
    np.testing.assert_allclose(found.log_likelihood, EXACT, atol=0.05)
    assert np.all(np.abs(found.log_likelihood - EXACT) < 4 * found.standard_error + 0.01)


def test_words_for_points_of_another_shape():
    with pytest.raises(ValueError, match=r"one point of shape \(3,\), got shape \(2,\)"):
        ns.GeneratorPrior(Partial(decode, WEIGHTS), 2).log_joint(jnp.zeros(2), jnp.zeros(2), 1.0)
    with pytest.raises(
        ValueError, match=r"z must be one point of shape \(2,\), got shape \(5, 2\)"
    ):
        log_joint(jnp.zeros((5, 2)), Y[0])
    with pytest.raises(ValueError, match="annealed_log_likelihood needs a random key, got None"):
        ns.diagnostics.annealed_log_likelihood(log_joint, prior, Y, key=None, step_size=0.1)
    with pytest.raises(ValueError, match=r"random key, got the integer 0"):
        ns.diagnostics.evidence_bounds(log_joint, encoder, Y, key=0)
    with pytest.raises(TypeError, match="returns a NumPyro distribution of z.*got"):
        ns.diagnostics.evidence_bounds(log_joint, posterior_mean, Y, key=KEY)


def positive(y):
    return dist.HalfNormal(jnp.ones(2))


def test_annealing_needs_a_proposal_without_bounds_and_no_certain_dtype():
    run = functools.partial(
        ns.diagnostics.annealed_log_likelihood, log_joint, key=KEY, step_size=0.2, num_levels=3
    )
    with pytest.raises(ValueError, match="moves z over all real numbers, but proposal has the"):
        run(positive, Y)
    found = run(prior, Y.astype(jnp.bfloat16)).log_likelihood
    np.testing.assert_allclose(found, run(prior, Y).log_likelihood, atol=1e-5)
    assert found.dtype == jnp.float32
