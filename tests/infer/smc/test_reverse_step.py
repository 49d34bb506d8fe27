# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A step of the reverse process from one noise level to the next, and its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

import numpyro_scores as ns
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.gaussian_twist import GaussianTwist, Moments, axes_of
from numpyro_scores.infer.smc.reverse_step import ReverseStep, ReverseTarget
from numpyro_scores.infer.smc.twist import DiffusionTwist

pytestmark = pytest.mark.usefixtures("quick_compilation")

PROCESS = ns.VarianceExploding(sigma_min=0.05, sigma_max=20.0)
RNG = np.random.default_rng(0)
ROOT, MEAN, OPERATOR = RNG.normal(size=(3, 3)), RNG.normal(size=3), RNG.normal(size=(4, 3))
COVARIANCE, OWN = ROOT @ ROOT.T + 0.1 * np.eye(3), 0.4


def normal(covariance, x, sigma):
    total = covariance + sigma**2 * jnp.eye(3)
    return -dist.MultivariateNormal(MEAN, total).log_prob(x)


def difference(y, inferred=False):
    """Of two Gaussian values, of which one has a noise level of its own."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0)) if inferred else 0.3
    a, b = (
        jax.tree_util.Partial(normal, covariance) for covariance in (COVARIANCE, 4 * COVARIANCE)
    )
    a = numpyro.sample("a", ns.DiffusionPrior(a, PROCESS, 3))
    b = numpyro.sample("b", ns.DiffusionPrior(b, PROCESS, 3).at(OWN))
    numpyro.sample("y", dist.Normal(OPERATOR @ (a - b), scale).to_event(1), obs=y)


def exact_moments():
    zero, identity = np.zeros((3, 3)), np.eye(3)
    return Moments(
        np.tile(MEAN, 2),
        jnp.asarray(
            np.block(
                [
                    [COVARIANCE + PROCESS.sigma_min**2 * identity, zero],
                    [zero, 4 * COVARIANCE + OWN**2 * identity],
                ]
            )
        ),
    )


def log_weights(levels, inferred):
    """Of steps from far away, which the weights of an exact step do not know."""
    model = FlatModel(difference, (jnp.array([0.3, -0.8, 1.0, 0.1]), inferred), {})
    x = random.normal(random.key(1), (5, 6 + inferred), jnp.float64)
    moments = exact_moments()
    moments = moments._replace(axes=axes_of(moments, DiffusionTwist(model), x[0]))

    def found(high, low):
        here, there = (GaussianTwist(model, moments, sigma, x[0]) for sigma in (high, low))
        step = ReverseStep(here, there, high, low, x[0])

        def weight(key, x):
            far = x.at[here.noisy].multiply(high)
            point = ReverseTarget(here, high).at(far, jnp.zeros(()))
            moved, log_ratio = step(key, point)
            energy = ReverseTarget(there, low).at(moved, jnp.zeros(())).energy
            return point.energy - energy + log_ratio, point.share

        return jax.vmap(weight)(random.split(random.key(0), len(x)), x)

    return map(np.asarray, jax.jit(jax.vmap(found))(*jnp.asarray(levels).T))


@pytest.mark.parametrize("inferred", [False, True], ids=["noise known", "noise of each particle"])
def test_of_a_gaussian_all_weights_are_one(inferred, x64):
    levels = [(19.0, 5.0), (1.0, 0.5), (0.5, 0.3), (0.3, 0.1), (0.1, 0.05)]
    weights, share = log_weights(levels, inferred)
    np.testing.assert_allclose(weights, 0, atol=1e-8)
    np.testing.assert_array_equal(share, 0)
