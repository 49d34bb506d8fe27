# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a family hands over once it is trained, and how its likelihood is found."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import MCMC

import numpyro_scores as ns
from benchmarks.families.data import Data

EDGE, NUM_CELLS = 3.0, 301


class Likelihood(NamedTuple):
    """
    - **value** - the mean log density of points held out, in nats.
    - **standard_error** - by the choice of points.
    - **how** - exact, a bound, or which estimate.
    """

    value: float
    standard_error: float
    how: str


class Learned(NamedTuple):
    """
    - **prior** - for a NumPyro model: a distribution, or a `GeneratorPrior`.
    - **draw** - `draw(key, n)`, draws with the noise that belongs to them.
    - **likelihoods** - `likelihoods(key)`, the one to compare first; none if there is none.
    - **noise** - observation noise on the points of a `GeneratorPrior`.
    """

    prior: Any
    draw: Callable[[Array, int], Array]
    likelihoods: Callable[[Array], list[Likelihood]]
    noise: float = 0.0


def likelihood(values: Any, how: str) -> Likelihood:
    values = np.asarray(values, float)
    return Likelihood(values.mean(), values.std() / math.sqrt(len(values)), how)


def of_density(log_prob: Callable[[Array], Array], data: Data, how: str) -> Likelihood:
    return likelihood(jax.jit(log_prob)(data.held_out), how)


def of_energy(energy: Callable[[Array], Array], data: Data, key: Array) -> list[Likelihood]:
    """With the normaliser from a grid of the plane, or else by annealing from a normal density."""
    at_points = jax.jit(jax.vmap(energy))(data.held_out)
    if data.name == "moons":
        axis = jnp.linspace(-EDGE, EDGE, NUM_CELLS)
        grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
        cell = (axis[1] - axis[0]) ** 2
        values = jax.jit(lambda x: jax.lax.map(energy, x, batch_size=1024))(grid)
        log_z = jax.nn.logsumexp(-values) + jnp.log(cell)
        return [likelihood(-at_points - log_z, "normalised on a grid")]
    normal = normal_density(data)
    log_z = ns.diagnostics.annealed_log_likelihood(
        lambda x, _: -energy(x),
        lambda _: normal,
        jnp.zeros((1, 1)),
        key=key,
        step_size=0.05,
        num_draws=64,
        num_levels=400,
    )
    error = float(log_z.standard_error[0])
    how = f"normaliser by annealing, its error {error:.1f}"
    return [likelihood(-at_points - log_z.log_likelihood[0], how)]


def normal_density(data: Data) -> dist.MultivariateNormal:
    """With the mean and covariance of the data and their noise."""
    covariance = np.cov(data.training.T) + data.noise**2 * np.eye(data.training.shape[1])
    return dist.MultivariateNormal(jnp.asarray(data.training.mean(0)), jnp.asarray(covariance))


def by_chains(density: Any, start: Array, key: Array, num_steps: int) -> Array:
    """The ends of chains, one from each start."""

    def model() -> None:
        numpyro.sample("x", density)

    mcmc = MCMC(
        ns.MALA(model, num_steps=20),
        num_warmup=num_steps // 20,
        num_samples=1,
        num_chains=len(start),
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, init_params={"x": start})
    return mcmc.get_samples()["x"]


def chains_from_normal(density: Any, data: Data, num_steps: int = 1_000):
    """`draw(key, n)` by chains that start from a normal density."""

    def draw(key: Array, num_draws: int) -> Array:
        key_start, key_chains = random.split(key)
        start = normal_density(data).sample(key_start, (num_draws,))
        return by_chains(density, start, key_chains, num_steps)

    return draw
