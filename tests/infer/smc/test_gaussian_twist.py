# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The twist of the Gaussian of a prior's moments, and maps between Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.smc.test_twisted_energies import ENERGY, at_level, with_unknown_noise
from infer.smc.twists import NOISE, OPERATOR, PROCESS, Y
from jax import random

from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.gaussian_twist import GaussianTwist, Moments, moments_of
from numpyro_scores.infer.smc.level_moves import LevelTarget
from numpyro_scores.infer.smc.twist import DiffusionTwist

pytestmark = pytest.mark.usefixtures("quick_compilation")

MOMENTS = Moments(np.zeros(3), (1 + PROCESS.sigma_min**2) * np.eye(3))


def repeated(y, num):
    """Means of measurements have the noise of `linear`: these say of `x` what its data do."""
    x = numpyro.sample("x", ENERGY)
    rows = np.tile(OPERATOR, (num, 1))
    numpyro.sample("y", dist.Normal(rows @ x, NOISE * num**0.5).to_event(1), obs=jnp.tile(y, num))


@pytest.mark.parametrize("num", [1, 40], ids=["two numbers", "eighty"])
def test_of_a_gaussian_prior_it_is_exact_at_every_level(num, x64):
    sigma = 0.7
    model = FlatModel(repeated, (Y, num), {})
    x = np.random.default_rng(0).normal(size=(5, 3))
    twist = GaussianTwist(model, MOMENTS, jnp.asarray(sigma), x[0])
    exact = dist.MultivariateNormal(*at_level(sigma))
    target = LevelTarget(twist, jnp.asarray(sigma))
    points = jax.jit(jax.vmap(lambda x: target.at(x, jnp.zeros(()))))(x)
    difference = np.asarray(points.energy + exact.log_prob(x))
    np.testing.assert_allclose(difference, difference[0], rtol=1e-5)
    grad = jax.vmap(jax.grad(lambda x: -exact.log_prob(x)))(x)
    np.testing.assert_allclose(points.grad, grad, rtol=1e-5, atol=1e-5)


def test_many_numbers_that_are_not_linear_have_variances(x64):
    """A covariance of each particle would be dear."""

    def bent(y):
        x = numpyro.sample("x", ENERGY)
        numpyro.sample("y", dist.Normal(jnp.tile(x, 30) ** 2, NOISE).to_event(1), obs=y)

    x = np.ones(3)
    twist = GaussianTwist(FlatModel(bent, (jnp.ones(90),), {}), MOMENTS, jnp.asarray(0.7), x)
    assert not twist.has_covariance(x)


def masked(y, prior=ENERGY):
    x = numpyro.sample("x", prior)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    # One mask of numbers, and one of a vector.
    seen = jnp.array([True, False, True])
    rows = jnp.concatenate([OPERATOR[:1], jnp.ones((1, 3)), OPERATOR[1:]])
    numpyro.sample("y", dist.Normal(rows @ x, noise).mask(seen).to_event(1), obs=y)
    numpyro.sample("z", dist.Normal(rows @ x, noise).to_event(1).mask(False), obs=y)


def test_a_number_beneath_a_mask_is_none(x64):
    """It may be NaN, too."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=4))
    values = []
    for model, y in ((with_unknown_noise, Y), (masked, jnp.array([Y[0], jnp.nan, Y[1]]))):

        def found(x, y, model=model):
            twist = GaussianTwist(FlatModel(model, (y,), {}), MOMENTS, jnp.asarray(0.7), x)
            at = LevelTarget(twist, jnp.asarray(0.7)).at(x, jnp.zeros(()))
            return jnp.concatenate([at.energy[None], at.grad])

        values.append(jax.jit(found)(x, y))
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_moments_are_of_the_priors_alone():
    twist = DiffusionTwist(FlatModel(with_unknown_noise, (Y, ENERGY), {}))
    x = random.normal(random.key(0), (400, 4))  # of the noise, and of the prior
    found = moments_of(x, twist)
    noisy = np.asarray(x)[:, np.flatnonzero(twist.is_noisy(x[0]))]
    np.testing.assert_allclose(found.mean, noisy.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(noisy.T), atol=0.01)
