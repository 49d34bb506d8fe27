# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A Langevin kernel written by hand, as a user might, right or with one fault."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

SHAPE_PARAMETERS = jnp.array([0.7, 3.0])
STEP_SIZE = 0.5


def energy(x):
    """Of the logarithms of gamma variables: skewed, so that a proposal and its way back differ."""
    return jnp.sum(jnp.exp(x) - SHAPE_PARAMETERS * x)


def exact_draw(key):
    return {"x": random.loggamma(key, SHAPE_PARAMETERS)}


class State(NamedTuple):
    z: Any
    accept_prob: Any
    rng_key: Any


class Langevin(MCMCKernel):
    """Metropolis-adjusted Langevin; `fault` names what is wrong with it."""

    sample_field = "z"
    default_fields = ("z",)
    model = None
    _sample_fn = None

    def __init__(self, fault=None):
        self.fault = fault

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        if not is_prng_key(rng_key):
            z = init_params or jax.vmap(exact_draw)(rng_key)
            return State(z, jnp.zeros(len(rng_key)), rng_key)
        z = exact_draw(rng_key) if init_params is None or self.fault == "start" else init_params
        return State(z, jnp.zeros(()), rng_key)

    def sample(self, state, model_args, model_kwargs):
        if self.fault == "Python sees the data" and model_args:
            float(np.sum(model_args[0]))
        if is_prng_key(state.rng_key):
            return self.step(state)
        if self.fault == "one key for all chains":
            keys = jnp.broadcast_to(state.rng_key[:1], state.rng_key.shape)
            state = state._replace(rng_key=keys)
        return jax.vmap(self.step)(state)

    def step(self, state):
        h, x = STEP_SIZE, state.z["x"]
        key_proposal, key_accept, rng_key = random.split(state.rng_key, 3)
        if self.fault == "repeats its random numbers":
            rng_key = state.rng_key
        if self.fault == "ignores the key":
            key_proposal, key_accept = random.split(random.key(0))
        drift, noise = jax.grad(energy)(x), random.normal(key_proposal, x.shape)
        y = x - h * drift + jnp.sqrt(2 * h) * noise
        there = jnp.sum(noise**2) / 2
        back = jnp.sum((x - y + h * jax.grad(energy)(y)) ** 2) / (4 * h)
        log_ratio = energy(x) - energy(y) + there - back
        if self.fault == "no Hastings correction":
            log_ratio = energy(x) - energy(y)
        accept_prob = jnp.exp(jnp.minimum(log_ratio, 0.0))
        accept = random.uniform(key_accept) < accept_prob
        if self.fault == "stands still":
            accept = False
        if self.fault == "not finite":
            y, accept = y / 0.0, True
        x = jnp.where(accept, y, x)
        if self.fault == "another type":
            x = x.astype(jnp.float16)
        return State({"x": x}, accept_prob.astype(state.accept_prob.dtype), rng_key)

    def postprocess_fn(self, model_args, model_kwargs):
        return (
            (lambda z: jax.tree.map(lambda x: jnp.log(-(x**2)), z))
            if self.fault == "constrained"
            else lambda z: z
        )

    def __getstate__(self):
        state = self.__dict__.copy()
        return state | {"fault": "ignores the key"} if self.fault == "pickle" else state
