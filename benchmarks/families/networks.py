# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Networks, and how they are trained: by Adam with a rate that falls to zero, on noisy points."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax
from flax import nnx
from jax import Array, random

import numpyro_scores as ns
from benchmarks.families.data import Data

NUM_PARTS = 8  # of a conditional density
BATCH_SIZE = 128


class MLP(nnx.Module):
    """Two hidden layers, from a point to a point."""

    def __init__(self, size_in: int, size_out: int, seed: int, width: int = 128):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(size_in, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.readout = nnx.Linear(width, size_out, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.readout(jax.nn.silu(self.second(jax.nn.silu(self.first(x)))))


class Pair(nnx.Module):
    """A generator and its critic."""

    def __init__(self, latent_size: int, size: int, seed: int):
        self.generator = MLP(latent_size, size, seed)
        self._critic = MLP(size, 1, seed + 1)

    def critic(self, x: Array) -> Array:
        return self._critic(x)[0]


def mixture(*parameters: Array) -> dist.Distribution:
    """The conditional density of an entry: some normal ones."""
    logits, means, log_scales = jnp.split(jnp.stack(parameters, -1), 3, axis=-1)
    # Apart from each other at the start.
    means = means + jnp.linspace(-1.0, 1.0, NUM_PARTS)
    parts = dist.Normal(means, jnp.exp(jnp.clip(log_scales - 1.0, -5.0, 3.0)))
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), parts)


def negative_log_likelihood(module: Any, x: Array, *, key: Array) -> Array:
    del key
    return -jnp.mean(module.log_prob(x))


class Noisy:
    """An objective on points with fresh noise, in place of the points."""

    def __init__(self, objective: Any, data: Data):
        self.objective, self.data = objective, data
        if hasattr(objective, "init"):
            self.init = objective.init

    def __call__(self, module: Any, x: Array, *state: Any, key: Array) -> Any:
        key, key_noise = random.split(key)
        return self.objective(module, self.data.noisy(key_noise, x), *state, key=key)


def adam(rate: float, num_steps: int, b1: float = 0.9) -> optax.GradientTransformation:
    return optax.adamw(optax.cosine_decay_schedule(rate, num_steps), b1=b1, weight_decay=1e-3)


def at_rates(
    rates: dict[str, float], num_steps: int, b1: float = 0.5
) -> optax.GradientTransformation:
    """A rate for each part of a pair, told by the name that the path of a parameter begins with."""

    def part_of(params: Any) -> Any:
        def name(path, _):
            return next(part for part in rates if part in str(path[0]))

        return jax.tree.map_with_path(name, params)

    return optax.partition({k: adam(rate, num_steps, b1) for k, rate in rates.items()}, part_of)


def train(
    module: Any,
    objective: Callable[..., Any],
    data: Data,
    num_steps: int,
    optimizer: optax.GradientTransformation | float = 2e-3,
    *,
    noisy: bool = True,
) -> Any:
    if not isinstance(optimizer, optax.GradientTransformation):
        optimizer = adam(optimizer, num_steps)
    return ns.fit(
        module,
        Noisy(objective, data) if noisy else objective,
        data.training,
        key=random.key(0),
        optimizer=optimizer,
        num_steps=num_steps,
        batch_size=BATCH_SIZE,
        ema_decay=0.995,
        progress_bar=False,
    ).module
