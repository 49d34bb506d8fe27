# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
A prior of finitely many points (Burns & Fridovich-Keil, arXiv 2605.30330): whatever the operator
and the noise, the posterior weight of a point is proportional to its likelihood.

The points are 100 pictures of handwritten digits, 8 x 8 pixels. The noise of each problem is such
that about five points share the posterior, for one point that has it all is no test of weights.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from sklearn.datasets import load_digits

import numpyro_scores as ns
from benchmarks.exact.problems import Cell, of_model
from benchmarks.posteriors import SAMPLERS, noise_level, tempered

NUM_POINTS, SIDE, NUM_DRAWS = 100, 8, 1_000
EFFECTIVE = 5.0
VARIATION = "total variation of the weights"
AWAY = "share of draws at no point"
PROCESS = ns.VarianceExploding(sigma_min=0.05, sigma_max=50.0)
MANY_DRAWS = "TemperedSMC, 20 prior draws a particle"
COLUMNS = ("TemperedSMC", MANY_DRAWS)
COLUMNS_IN_FULL = (
    *COLUMNS,
    "TwistedDiffusionSampler",
    "NoiseLevelSMC",
    "AnnealedLangevin",
    "DiffusionPosteriorSampling",
    "MomentMatching",
    "DAPS",
)


def digits() -> np.ndarray:
    """Points in `[-1, 1]`, shape `(100, 64)`."""
    rng = np.random.default_rng(0)
    data = load_digits().data
    return (data[rng.choice(len(data), NUM_POINTS, replace=False)] / 8 - 1).astype(np.float32)


POINTS = digits()


def denoiser(points: Array, x: Array, sigma: Array) -> Array:
    """`E[x_0 | x_0 + sigma z = x]` for points of equal weight."""
    return jax.nn.softmax(-jnp.sum((x - points) ** 2, axis=1) / (2 * sigma**2)) @ points


def energy(points: Array, x: Array, sigma: Array) -> Array:
    """`-log p_sigma(x)`."""
    logits = -jnp.sum((x - points) ** 2, axis=1) / (2 * sigma**2)
    normalizer = len(x) * jnp.log(np.sqrt(2 * np.pi) * sigma) + np.log(len(points))
    return normalizer - jax.nn.logsumexp(logits)


ENERGY_PRIOR = ns.DiffusionPrior(partial(energy, jnp.asarray(POINTS)), PROCESS, SIDE**2)
PRIOR = ns.DiffusionPrior(partial(denoiser, jnp.asarray(POINTS)), PROCESS, SIDE**2)


class Problem(NamedTuple):
    """
    - **scale** - standard deviation of the noise; of counts the exposure, shape `()`.
    - **operator** - a matrix, which phase retrieval has no use for.
    - **y** - the data.
    """

    scale: Array
    operator: Array
    y: Array


def linear(operator, x):
    return operator @ x


def phase_retrieval(operator, x):
    del operator
    intensities = ns.inverse.PhaseRetrieval((SIDE, SIDE))(jnp.reshape(x + 1, (SIDE, SIDE)) / 2)
    return jnp.ravel(intensities)


def saturation(operator, x):
    return jnp.clip(operator @ x, -1.0, 1.0)


def intensity(operator, x):
    return jnp.exp(operator @ x)


def gaussian(forward: Callable) -> Callable[[Problem, Array], dist.Distribution]:
    return lambda problem, x: dist.Normal(forward(problem.operator, x), problem.scale).to_event(1)


def poisson(problem: Problem, x: Array) -> dist.Distribution:
    return dist.Poisson(problem.scale * intensity(problem.operator, x)).to_event(1)


LIKELIHOODS = {
    "linear": gaussian(linear),
    "phase retrieval": gaussian(phase_retrieval),
    "saturation": gaussian(saturation),
    "Poisson counts": poisson,
}


@cache
def log_likelihoods(likelihood: Callable) -> Callable[[Problem, np.ndarray], Array]:
    """Of all points, compiled once for all problems."""

    def of(problem, x):
        return likelihood(problem, x).log_prob(problem.y)

    return jax.jit(jax.vmap(of, in_axes=(None, 0)))


def weights_of(likelihood: Callable, problem: Problem) -> np.ndarray:
    """The posterior weights of the points."""
    logits = np.asarray(log_likelihoods(likelihood)(problem, POINTS), np.float64)
    p = np.exp(logits - logits.max())
    return p / p.sum()


def make_problem(likelihood: Callable, seed: int) -> Problem:
    """Data of one of the points, with the noise (or exposure) that leaves about five of them."""
    key_matrix, key_point, key_data = random.split(random.key(seed), 3)
    operator = random.normal(key_matrix, (16, SIDE**2)) / SIDE
    x = jnp.asarray(POINTS)[random.randint(key_point, (), 0, NUM_POINTS)]

    def of(scale):
        problem = Problem(jnp.asarray(scale), operator, jnp.zeros(()))
        return problem._replace(y=likelihood(problem, x).sample(key_data))

    scales = np.geomspace(1e-2, 1e2, 61)
    numbers = [1 / np.sum(weights_of(likelihood, of(scale)) ** 2) for scale in scales]
    return of(scales[np.argmin(np.abs(np.log(numbers) - np.log(EFFECTIVE)))])


def exact_draws(weights: np.ndarray, key: Array, num_draws: int) -> Array:
    rng = np.random.default_rng(np.asarray(random.key_data(key)))
    chosen = POINTS[rng.choice(NUM_POINTS, size=num_draws, p=weights)]
    return jnp.asarray(chosen + PROCESS.sigma_min * rng.normal(size=chosen.shape), jnp.float32)


def distance(weights: np.ndarray, x: Array) -> dict[str, float]:
    """Of the shares of the points that are nearest, and how many draws are near none of them."""
    draws = np.asarray(x, np.float64)
    squared = ((draws[:, None] - POINTS) ** 2).sum(axis=-1)
    share = np.bincount(squared.argmin(axis=1), minlength=NUM_POINTS) / len(x)
    # Draws have the noise of the smallest level; twice its norm is not within reach of it.
    away = squared.min(axis=1) > (2 * PROCESS.sigma_min * SIDE) ** 2
    return {VARIATION: np.abs(share - weights).sum() / 2, AWAY: away.mean()}


def cell(name: str, num_problems: int, columns: Sequence[str] = COLUMNS) -> Cell:
    likelihood = LIKELIHOODS[name]
    problems = [make_problem(likelihood, seed) for seed in range(num_problems)]
    weights = [weights_of(likelihood, problem) for problem in problems]

    def model(problem, prior=PRIOR):
        x = jnp.asarray(numpyro.sample("x", prior))
        numpyro.sample("y", likelihood(problem, x), obs=problem.y)

    by_energy = of_model(partial(model, prior=ENERGY_PRIOR), noise_level)
    return Cell(
        f"100 points, {name}",
        model,
        PRIOR,
        [(problem,) for problem in problems],
        lambda i, key, num_draws: exact_draws(weights[i], key, num_draws),
        lambda i, x: distance(weights[i], x),
        NUM_DRAWS,
        columns,
        makers=SAMPLERS
        | {"NoiseLevelSMC": by_energy, MANY_DRAWS: partial(tempered, draws_a_particle=20)},
    )


def cells(full: bool) -> Iterator[Cell]:
    for name in LIKELIHOODS:
        yield cell(name, 10, COLUMNS_IN_FULL) if full else cell(name, 1)
