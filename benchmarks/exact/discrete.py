# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Discrete numbers of 50 levels in `D` dimensions, a discretised Gaussian prior, and sums of
neighbours measured with noise; the Hellinger distance of the law of the first two numbers to the
exact one, which follows from summing over the others one after the other.

SGDD (arXiv 2503.01161) publishes such a table, but its prior and its operator are not known to us:
the number shows what such samplers have there, and is not to be compared with those here. What
2,000 exact draws have is the floor, and differs from one problem to another.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel

import numpyro_scores as ns
from benchmarks.exact.problems import Cell
from benchmarks.posteriors import Draw, Posterior

NUM_LEVELS, NOISE = 50, 0.5
NUM_DRAWS, NUM_CHAINS, NUM_WARMUP, THINNING = 2_000, 200, 30, 2
HELLINGER = "Hellinger distance"
LEVELS = np.linspace(-3.0, 3.0, NUM_LEVELS).astype(np.float32)
PRIOR = np.exp(-(LEVELS**2) / 2) / np.exp(-(LEVELS**2) / 2).sum()
SIZES = (2, 5, 10)
PUBLISHED = dict(zip(SIZES, (0.149, 0.214, 0.334), strict=True))


def entries(y: Array) -> None:
    """Every number a site of its own, so that each has its exact conditional."""
    sites = [numpyro.sample(f"x{j}", dist.Categorical(PRIOR)) for j in range(len(y) + 1)]
    _data(jnp.stack(sites), y)


def vector(y: Array) -> None:
    """All of them one site."""
    x = numpyro.sample("x", dist.Categorical(PRIOR).expand([len(y) + 1]).to_event(1))
    _data(x, y)


def _data(x, y):
    values = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * x  # as a function that has a gradient
    numpyro.sample("y", dist.Normal(values[:-1] + values[1:], NOISE).to_event(1), obs=y)


def make_problem(dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([dim, seed])
    x = LEVELS[rng.choice(NUM_LEVELS, size=dim, p=PRIOR)]
    return (x[:-1] + x[1:] + NOISE * rng.normal(size=dim - 1)).astype(np.float32)


class Exact(NamedTuple):
    """
    - **first** - probabilities of the first number, shape `(50,)`.
    - **next** - of each further one given the one before, shape `(D - 1, 50, 50)`.
    """

    first: np.ndarray
    next: np.ndarray


def exact_posterior(y: np.ndarray) -> Exact:
    message, steps = np.ones(NUM_LEVELS), []
    for datum in y[::-1].astype(np.float64):
        pair = np.exp(-(((datum - LEVELS[:, None] - LEVELS) / NOISE) ** 2) / 2)
        pair = pair * PRIOR * message
        message = pair.sum(axis=1)
        steps.append(pair / message[:, None])
        message = message / message.max()
    first = PRIOR * message
    return Exact(first / first.sum(), np.stack(steps[::-1]))


def exact_draws(exact: Exact, key: Array, num_draws: int) -> np.ndarray:
    rng = np.random.default_rng(np.asarray(random.key_data(key)))
    x = [rng.choice(NUM_LEVELS, size=num_draws, p=exact.first)]
    for step in exact.next:
        cumulative = np.cumsum(step[x[-1]], axis=1)
        x.append((cumulative < rng.uniform(size=num_draws)[:, None]).sum(axis=1))
    return np.minimum(np.stack(x, axis=1), NUM_LEVELS - 1)


def distance(exact: Exact, x: Array) -> dict[str, float]:
    pair = exact.first[:, None] * exact.next[0]
    first, second = np.asarray(x)[:, :2].T.astype(int)
    count = np.bincount(first * NUM_LEVELS + second, minlength=NUM_LEVELS**2)
    overlap = np.sum(np.sqrt(pair.ravel() * count / len(x)))
    return {HELLINGER: float(np.sqrt(max(1 - overlap, 0.0)))}


def of(kernel: Callable[[Callable], MCMCKernel], model: Callable) -> Callable[..., Draw]:
    """Draws of many chains of a kernel of discrete sites."""

    def maker(_, prior: None, num_draws: int) -> Draw:
        mcmc = MCMC(
            kernel(model),
            num_warmup=NUM_WARMUP,
            num_samples=THINNING * num_draws // NUM_CHAINS,
            thinning=THINNING,
            num_chains=NUM_CHAINS,
            chain_method="vectorized",
            jit_model_args=True,
            progress_bar=False,
        )

        def draw(key, y):
            mcmc.run(key, y)
            found = mcmc.get_samples()
            # In the order of the numbers, which is not that of the names.
            x = found.get("x")
            x = jnp.stack([found[f"x{j}"] for j in range(len(found))], -1) if x is None else x
            return Posterior(x, np.nan)

        return draw

    return maker


MAKERS = {
    "BlockGibbs": of(ns.BlockGibbs, entries),
    "DiscreteLangevin": of(lambda model: ns.DiscreteLangevin(model, num_steps=10), vector),
    "GibbsWithGradients": of(ns.GibbsWithGradients, vector),
}


def cell(dim: int, num_problems: int) -> Cell:
    problems = [make_problem(dim, seed) for seed in range(num_problems)]
    exact = [exact_posterior(y) for y in problems]
    return Cell(
        f"{dim} numbers of 50 levels",
        vector,
        None,
        [(jnp.asarray(y),) for y in problems],
        lambda i, key, num_draws: jnp.asarray(exact_draws(exact[i], key, num_draws)),
        lambda i, x: distance(exact[i], x),
        NUM_DRAWS,
        tuple(MAKERS),
        {"SGDD, its own operator": {HELLINGER: PUBLISHED[dim]}},
        MAKERS,
    )


def cells(full: bool) -> Iterator[Cell]:
    for dim in SIZES:
        yield cell(dim, 10 if full else 1)
