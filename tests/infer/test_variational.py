# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""NumPyro's variational inference in models with learned priors, on a posterior that is known."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.tree_util import Partial
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from numpyro.optim import Adam

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRECISION = np.array([[2.0, -1.5], [-1.5, 2.0]])
NOISE, Y = 0.8, np.array([1.0, -0.5])
POSTERIOR = PRECISION + np.eye(2) / NOISE**2
MEAN = np.linalg.solve(POSTERIOR, Y / NOISE**2)


def energy(precision, x):
    return x @ precision @ x / 2


def model(prior, y):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)


def priors():
    weights = Partial(energy, jnp.asarray(PRECISION))
    covariance = np.linalg.inv(PRECISION)
    normal = dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=covariance)
    return ns.EnergyDistribution(weights, 2), ns.distributions.FlowPrior(normal)


@pytest.mark.slow
@pytest.mark.parametrize("prior", priors())
def test_a_guide_that_holds_the_posterior_finds_it_and_one_that_does_not_is_too_narrow(prior):
    for make, covariance in (
        (AutoMultivariateNormal, np.linalg.inv(POSTERIOR)),
        (AutoNormal, np.diag(1 / np.diagonal(POSTERIOR))),  # the best of independent normals
    ):
        guide = make(model)
        svi = SVI(model, guide, Adam(0.01), Trace_ELBO(num_particles=32))
        params = svi.run(random.key(0), 1_500, prior, Y, progress_bar=False).params
        draws = guide.sample_posterior(random.key(1), params, sample_shape=(4_000,))["x"]
        np.testing.assert_allclose(np.mean(draws, 0), MEAN, atol=0.05)
        np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.03)
