# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Short runs, for what becomes of their results."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import xarray
from numpyro.infer import HMC, MCMC

Y = jnp.array([0.3, -1.2, 2.0])
CHAINS, DRAWS = 2, 6
FIELDS = ("potential_energy", "accept_prob", "num_steps", "energy", "adapt_state.step_size")


def model(y=None):
    x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand((2, 3)).to_event(2))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("group", 3):
        numpyro.sample("y", dist.Normal(x.sum(axis=0), scale), obs=y)


def quick(model=None, **kwargs):
    """A kernel that compiles fast."""
    options = {"step_size": 0.1, "adapt_step_size": False, "adapt_mass_matrix": False}
    return HMC(model, trajectory_length=None, num_steps=1, **options, **kwargs)


def half_square(z):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(z)) / 2


def run(kernel, *args, draws=DRAWS, chains=CHAINS, extra_fields=FIELDS, **kwargs):
    mcmc = MCMC(
        kernel,
        num_warmup=20,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), *args, extra_fields=extra_fields, **kwargs)
    return mcmc


def group_names(inference_data):
    """The groups of either container."""
    if hasattr(inference_data, "children"):
        return set(inference_data.children)
    return set(inference_data.groups())


def posterior(**draws):
    """Draws as ArviZ holds them."""
    sites = {
        name: (["chain", "draw", *(f"{name}_dim_{i}" for i in range(x.ndim - 2))], x)
        for name, x in draws.items()
    }
    return xarray.Dataset(sites)


def names(report):
    return {fault.name for fault in report.faults}


def line(report, title):
    (found,) = (line for line in report.lines if line.title == title)
    return found
