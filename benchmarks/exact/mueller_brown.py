# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The potential of Mueller and Brown (ScoreMD, arXiv 2506.17139): an energy of all noise levels is
learned from 50,000 points. Do draws by the reverse process have the law of the data, and do chains
by its density at the smallest level?

The Jensen-Shannon divergence is of histograms of 40 x 40 cells, and as many draws of the data have
one, too. Temperature, cells and data of the paper are others, so that its numbers show what plain
diffusion and its own remedy have there.
"""

from collections.abc import Callable, Iterator
from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from benchmarks import energy_plane
from benchmarks.energy_plane import (
    NUM_CHAINS,
    NUM_HEUN_STEPS,
    NUM_WARMUP,
    Learned,
    by_langevin,
    by_reverse_process,
    learned,
    noisy_points,
)
from benchmarks.exact.problems import Cell
from benchmarks.posteriors import Draw, Posterior

NUM_DRAWS, NUM_STEPS, NUM_STEPS_IN_FULL = 40_000, 5_000, 10_000
JENSEN_SHANNON = "Jensen-Shannon to the data, nats"
PUBLISHED = {
    "plain diffusion, draws": {JENSEN_SHANNON: 0.0122},
    "plain diffusion, Langevin": {JENSEN_SHANNON: 0.0448},
    "ScoreMD at best, draws": {JENSEN_SHANNON: 0.0110},
    "ScoreMD at best, Langevin": {JENSEN_SHANNON: 0.0108},
}


@cache
def fitted(num_steps: int, seed: int) -> Learned:
    return learned(energy_plane.mueller_brown, np.random.default_rng(seed), num_steps, seed)


def points(num_steps: int, seed: int, num: int, stream: int) -> np.ndarray:
    """Points with noise, about the mean of those that the energy was trained on."""
    centre = fitted(num_steps, seed).centre
    rng = np.random.default_rng([seed, stream])
    return noisy_points(energy_plane.mueller_brown, rng, centre, num)


def reverse(model: Callable, prior: None, num_draws: int) -> Draw:
    del model, prior

    def draw(key, num_steps, seed):
        x = by_reverse_process(fitted(num_steps, seed).prior, key, num_draws)
        return Posterior(jnp.asarray(x), 2 * NUM_HEUN_STEPS)

    return draw


def langevin(model: Callable, prior: None, num_draws: int) -> Draw:
    del model, prior

    def draw(key, num_steps, seed):
        starts = points(num_steps, seed, NUM_CHAINS, stream=2)
        x = by_langevin(fitted(num_steps, seed).prior, key, starts, num_draws)
        return Posterior(jnp.asarray(x), 1 + NUM_WARMUP * NUM_CHAINS / num_draws)

    return draw


MAKERS = {"draws by the reverse process": reverse, "MALA at the smallest level": langevin}


def cells(full: bool) -> Iterator[Cell]:
    num_steps = NUM_STEPS_IN_FULL if full else NUM_STEPS
    problems = [(num_steps, seed) for seed in range(3 if full else 1)]

    def exact(i: int, key: Array, num_draws: int) -> Array:
        return jnp.asarray(points(*problems[i], num_draws, stream=int(random.bits(key))))

    def figures(i: int, x: Array) -> dict[str, float]:
        truth = points(*problems[i], len(x), stream=1)
        return {JENSEN_SHANNON: energy_plane.jensen_shannon(np.asarray(x), truth)}

    yield Cell(
        f"Mueller-Brown, {num_steps:,} steps of training",
        energy_plane.mueller_brown,
        None,
        problems,
        exact,
        figures,
        NUM_DRAWS,
        tuple(MAKERS),
        PUBLISHED,
        MAKERS,
    )
