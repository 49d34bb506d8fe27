# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the tests of replica exchange share."""

import jax
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer import MCMC


def gaussian(d):
    numpyro.sample("x", dist.Normal(0.0, 1.0).expand([d]).to_event(1))


def flat(*_):
    """All densities are the same, so every swap is accepted."""
    numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))


def advance(kernel, state, num_draws, *args):
    def step(state, _):
        state = kernel.sample(state, args, {})
        return state, state

    return jax.jit(lambda state: jax.lax.scan(step, state, length=num_draws))(state)


def run(kernel, *args, num_warmup, num_samples, num_chains, fields=()):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), *args, extra_fields=fields)
    return mcmc
