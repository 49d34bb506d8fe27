# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A kernel that compiles in a moment, and a model for it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from numpyro.infer.mcmc import MCMCKernel

import numpyro_scores as ns

DATA = jnp.arange(3.0)


def model(y):
    """As ArviZ sees what :class:`RandomWalk` draws from."""
    with numpyro.plate("group", 2):
        numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    numpyro.deterministic("double", 2 * tau)
    numpyro.sample("y", dist.Normal(0.0, tau).expand([3]).to_event(1), obs=y)


class WalkState(NamedTuple):
    z: dict
    potential_energy: jax.Array
    step_size: jax.Array
    i: jax.Array
    rng_key: jax.Array


class RandomWalk(MCMCKernel):
    """Metropolis, with a step size that warmup changes."""

    sample_field = "z"
    default_fields = ("z",)

    def __init__(self, model=model, scale=1.0):
        self.model = model
        self._scale = scale

    def _energy(self, z, y):
        return 0.5 * jnp.sum((z["mu"] / self._scale) ** 2) + 0.5 * (z["log_tau"] - y.mean()) ** 2

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        if init_params is None:
            init_params = {"mu": random.normal(rng_key, (2,)), "log_tau": jnp.zeros(())}
        energy = self._energy(init_params, *model_args)
        return WalkState(init_params, energy, jnp.ones(()), jnp.zeros((), int), rng_key)

    def sample(self, state, model_args, model_kwargs):
        z, energy, step_size, i, key = state
        key, key_proposal, key_accept = random.split(key, 3)
        noise = random.normal(key_proposal, (3,))
        new = {
            "mu": z["mu"] + step_size * noise[:2],
            "log_tau": z["log_tau"] + step_size * noise[2],
        }
        new_energy = self._energy(new, *model_args)
        accept = jnp.log(random.uniform(key_accept)) < energy - new_energy
        z = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, z)
        energy = jnp.where(accept, new_energy, energy)
        factor = jnp.where(i < 20, jnp.exp(0.1 * (accept - 0.5)), 1.0)
        return WalkState(z, energy, step_size * factor, i + 1, key)

    def postprocess_fn(self, model_args, model_kwargs):
        def constrain(z):
            tau = jnp.exp(z["log_tau"])
            return {"mu": z["mu"], "tau": tau, "double": 2 * tau}

        return constrain


def plain_scan(kernel, key, num_warmup, num_draws, thinning, y):
    """What a kernel draws in a bare loop, one chain."""
    state = kernel.init(key, num_warmup, None, (y,), {})

    def step(state, _):
        state = kernel.sample(state, (y,), {})
        return state, state

    _, states = jax.jit(lambda s: lax.scan(step, s, length=num_warmup + num_draws * thinning))(
        state
    )
    kept = jax.tree.map(lambda x: x[num_warmup + thinning - 1 :: thinning], states)
    return kept, jax.vmap(kernel.postprocess_fn((y,), {}))(kept.z)


def equal(a, b):
    """Whether two trees hold the same bits."""
    leaves = [jax.tree.leaves(tree) for tree in (a, b)]
    return len(leaves[0]) == len(leaves[1]) and all(
        np.array_equal(x, y) for x, y in zip(*leaves, strict=True)
    )


KERNEL = RandomWalk()
KEY = random.key(0)


def run(kernel=KERNEL, *, key=KEY, data=DATA, num_samples=60, **settings):
    settings = {"num_warmup": 30, "num_chains": 2, "chunk_size": 7, **settings}
    mcmc = ns.StoredMCMC(kernel, num_samples=num_samples, progress_bar=False, **settings)
    mcmc.run(key, data, extra_fields=("potential_energy",))
    return mcmc
