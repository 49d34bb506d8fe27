# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Supports whose bounds are other sites: right as one block, refused across blocks of Gibbs."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, mean_and_error
from jax import random
from numpyro.infer import MCMC, Gibbs

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def model():
    b = numpyro.sample("b", dist.LogNormal(0.0, 0.5))
    x = numpyro.sample("x", dist.Uniform(0.0, b).expand([1]).to_event(1))
    numpyro.sample("y", dist.Normal(x[0], 0.3), obs=jnp.array(1.0))


def exact_means():
    """E[b] and E[x], by midpoints."""
    b, u = np.meshgrid((np.arange(4_000) + 0.5) * 0.003, (np.arange(400) + 0.5) / 400)
    x = b * u
    log_density = -np.log(b) - np.log(b) ** 2 / (2 * 0.25) - (x - 1) ** 2 / (2 * 0.09)
    weights = np.exp(log_density) / np.sum(np.exp(log_density))
    return np.sum(weights * b), np.sum(weights * x)


@pytest.mark.parametrize("kernel", [ns.MALA, ns.ULA], ids=["MALA", "ULA"])
def test_a_bound_within_an_event_axis_moves_with_its_site(kernel):
    mcmc = MCMC(
        kernel(model, num_steps=10),
        num_warmup=300,
        num_samples=1_000,
        num_chains=8,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0))
    draws = mcmc.get_samples(group_by_chain=True)
    assert np.all(draws["x"][..., 0] <= draws["b"] * (1 + 1e-6))
    if kernel is ns.MALA:
        for values, exact in zip((draws["b"], draws["x"][..., 0]), exact_means(), strict=True):
            mean, error = mean_and_error(values)
            assert_within(mean, exact, error)


@pytest.mark.parametrize("kernel", [ns.MALA, ns.ULA, ns.MALT])
def test_a_bound_that_another_block_moves_is_told(kernel):
    blocks = Gibbs([(kernel(model), ["x"]), (ns.MALA(model), ["b"])])
    mcmc = MCMC(blocks, num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match=r"The support of 'x' depends on \['b'\].*one block"):
        mcmc.run(random.key(0))


def test_a_bound_that_is_data_is_no_site_of_another_block():
    def with_data(bound):
        x = numpyro.sample("x", dist.Uniform(0.0, bound))
        numpyro.sample("mu", dist.Normal(x, 1.0))

    blocks = Gibbs([(ns.MALA(with_data), ["x"]), (ns.MALA(with_data), ["mu"])])
    mcmc = MCMC(blocks, num_warmup=10, num_samples=20, progress_bar=False)
    mcmc.run(random.key(0), jnp.array(2.0))
    assert np.all(mcmc.get_samples()["x"] <= 2.0)
