# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A run in a process of its own, to be killed: `python killed.py KERNEL PATH`."""

import sys

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer import HMC, NUTS, DiscreteGibbs, Gibbs
from numpyro.infer.gibbs import discrete_latent_sites

import numpyro_scores as ns

Y = jnp.array([0.3, -1.0, 2.0])


def scale(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", 3):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def mixture(y):
    c = numpyro.sample("c", dist.Categorical(jnp.array([0.3, 0.7])))
    mu = numpyro.sample("mu", dist.Normal(jnp.array([-1.0, 1.0])[c], 1.0))
    with numpyro.plate("data", 3):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def spins(y):
    rbm = ns.BernoulliRBM(
        jnp.array([[0.5, -0.5], [1.0, 0.2], [0.1, 0.4]]), jnp.zeros(3), jnp.zeros(2)
    )
    x = numpyro.sample("x", rbm)
    numpyro.sample("y", dist.Normal(x.astype(float), 1.0).to_event(1), obs=y)


def picture(y):
    x = numpyro.sample("x", ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.1, 5.0), (3,)))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


def denoiser(x, sigma):
    """Of a standard normal prior."""
    return x / (1 + sigma**2)


KERNELS = {
    "NUTS": lambda: NUTS(scale),
    "HMC": lambda: HMC(scale),
    "MALA": lambda: ns.MALA(scale, num_steps=1),
    "BlockGibbs": lambda: ns.BlockGibbs(spins),
    "Gibbs": lambda: Gibbs(
        [(DiscreteGibbs(mixture), discrete_latent_sites), (NUTS(mixture), None)]
    ),
    "ReplicaExchange": lambda: ns.ReplicaExchange(
        ns.MALA(scale, num_steps=1), ns.LikelihoodPowers([1.0, 0.5])
    ),
    "AnnealedLangevin": lambda: ns.AnnealedLangevin(picture, num_levels=10),
}


def run(name, path):
    # Little optimisation: what takes time here is to compile.
    jax.config.update("jax_disable_most_optimizations", True)
    mcmc = ns.StoredMCMC(
        KERNELS[name](),
        num_warmup=40,
        num_samples=60,
        num_chains=2,
        chunk_size=4,
        keep_warmup=True,
        store=path,
        progress_bar=False,
    )
    mcmc.run(random.key(0), Y)
    return mcmc


if __name__ == "__main__":
    print("started", flush=True)
    cache = sys.argv[3]
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    run(*sys.argv[1:3])
