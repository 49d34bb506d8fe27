# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Ten Gaussians of equal weight and variance in 256 dimensions, 128 linear data with noise of variance
0.1: the problem of particle methods that correct or guide the reverse process (Feynman-Kac
correctors, arXiv 2503.02819; DriftLite, arXiv 2509.21655; interacting particle guidance).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from jax.tree_util import Partial

import numpyro_scores as ns
from benchmarks.exact.problems import Cell, of_model
from benchmarks.posteriors import SAMPLERS, noise_level, twisted

NUM_COMPONENTS, DIM, DIM_Y = 10, 256, 128
NOISE = 0.1**0.5
NUM_PARTICLES, NUM_PROJECTIONS = 256, 1_000
DISTANCE = "sliced 2-Wasserstein"
PROCESS = ns.VarianceExploding(sigma_min=0.02, sigma_max=80.0)
COLUMNS = (
    "TemperedSMC",
    "TwistedDiffusionSampler(num_steps=40)",
)
COLUMNS_IN_FULL = (
    *COLUMNS,
    "MomentMatching",
    "NoiseLevelSMC",
    "DiffusionPosteriorSampling",
    "AnnealedLangevin",
    "DAPS",
)
PUBLISHED = {
    "Feynman-Kac corrected, no resampling": {DISTANCE: 0.682},
    "Feynman-Kac corrected, adaptive": {DISTANCE: 0.311},
    "Feynman-Kac corrected, every step": {DISTANCE: 0.260},
    "DriftLite, no resampling": {DISTANCE: 0.509},
    "DriftLite, adaptive": {DISTANCE: 0.168},
    "DriftLite, every step": {DISTANCE: 0.182},
    "interacting particle guidance": {DISTANCE: 0.093},
}


class Problem(NamedTuple):
    """
    - **means** - of the components, shape `(10, 256)`.
    - **variance** - of every coordinate of a component, shape `()`.
    - **operator** - of normalised rows, shape `(128, 256)`.
    - **y** - the data, shape `(128,)`.
    """

    means: Array
    variance: Array
    operator: Array
    y: Array


def make_problem(seed: int) -> Problem:
    rng = np.random.default_rng([seed, DIM, DIM_Y])
    means = rng.uniform(-1.3, 1.3, size=(NUM_COMPONENTS, DIM))
    means -= means.mean(axis=0)
    variance = 1 - np.mean(means**2)  # that of a coordinate of the mixture is 1, on average
    operator = rng.normal(size=(DIM_Y, DIM))
    operator /= np.linalg.norm(operator, axis=1, keepdims=True)
    x = means[rng.integers(NUM_COMPONENTS)] + variance**0.5 * rng.normal(size=DIM)
    y = operator @ x + NOISE * rng.normal(size=DIM_Y)
    return Problem(*(jnp.asarray(a, jnp.float32) for a in (means, variance, operator, y)))


def denoiser(means: Array, variance: Array, x: Array, sigma: Array) -> Array:
    """`E[x_0 | x_0 + sigma z = x]`."""
    total = variance + sigma**2
    logits = -jnp.sum((x - means) ** 2, axis=1) / (2 * total)
    mean = jax.nn.softmax(logits) @ means
    return mean + (x - mean) * variance / total


def energy(means: Array, variance: Array, x: Array, sigma: Array) -> Array:
    """`-log p_sigma(x)`."""
    total = variance + sigma**2
    logits = -jnp.sum((x - means) ** 2, axis=1) / (2 * total)
    normalizer = len(x) / 2 * jnp.log(2 * np.pi * total) + np.log(len(means))
    return normalizer - jax.nn.logsumexp(logits)


def model(problem: Problem, function: Callable = denoiser) -> None:
    of_problem = Partial(function, problem.means, problem.variance)
    x = jnp.asarray(numpyro.sample("x", ns.DiffusionPrior(of_problem, PROCESS, DIM)))
    numpyro.sample("y", dist.Normal(problem.operator @ x, NOISE).to_event(1), obs=problem.y)


def moments(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and the common covariance of the posterior, a mixture again."""
    means, variance, operator, y = (np.asarray(a, np.float64) for a in problem)
    marginal = variance * operator @ operator.T + NOISE**2 * np.eye(len(y))
    gain = variance * np.linalg.solve(marginal, operator).T
    residuals = y - means @ operator.T
    logits = -(residuals * np.linalg.solve(marginal, residuals.T).T).sum(axis=1) / 2
    weights = np.exp(logits - logits.max())
    covariance = variance * (np.eye(means.shape[1]) - gain @ operator)
    return weights / weights.sum(), means + residuals @ gain.T, covariance


def exact_draws(problem: Problem, key: Array, num_draws: int) -> Array:
    weights, means, covariance = moments(problem)
    rng = np.random.default_rng(np.asarray(random.key_data(key)))
    noise = rng.normal(size=(num_draws, means.shape[1])) @ np.linalg.cholesky(covariance).T
    component = rng.choice(len(weights), size=num_draws, p=weights)
    return jnp.asarray(means[component] + noise, jnp.float32)


def distance(problem: Problem, x: Array) -> dict[str, float]:
    """To as many exact draws."""
    exact = exact_draws(problem, random.key(0), len(x))
    found = ns.diagnostics.sliced_wasserstein(
        exact, x, key=random.key(1), num_projections=NUM_PROJECTIONS
    )
    return {DISTANCE: float(found.statistic)}


MAKERS = SAMPLERS | {
    "NoiseLevelSMC": of_model(partial(model, function=energy), noise_level),
    "TwistedDiffusionSampler(num_steps=40)": partial(twisted, num_steps=40),
}


def cells(full: bool) -> Iterator[Cell]:
    problems = [make_problem(seed) for seed in range(5 if full else 1)]
    prior = ns.DiffusionPrior(
        partial(denoiser, problems[0].means, problems[0].variance), PROCESS, DIM
    )
    yield Cell(
        "ten Gaussians, 256 numbers, 128 data",
        model,
        prior,
        [(problem,) for problem in problems],
        lambda i, key, num_draws: exact_draws(problems[i], key, num_draws),
        lambda i, x: distance(problems[i], x),
        NUM_PARTICLES,
        COLUMNS_IN_FULL if full else COLUMNS,
        PUBLISHED,
        MAKERS,
    )
