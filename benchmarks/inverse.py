# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Posterior samplers on linear inverse problems with a known answer (Cardoso et al., arXiv 2308.07983,
Table 1): the prior is a mixture of 25 Gaussians in `dim` dimensions, known by its exact denoiser,
`dim_y` linear functions of a point are measured with noise, and the posterior is a mixture again.

The figure is the sliced Wasserstein distance of the draws to exact ones, beside that of two exact
sets, the floor; and the number of evaluations for each draw, those of the prior included. To the
nine cells of the table two are added in which half as many numbers are measured as are unknown.
With `--flow` each problem is solved by the exact velocity of straight paths, too, between the same
noise levels.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random

import numpyro_scores as ns
from benchmarks._arguments import count, sizes
from benchmarks._timing import timed
from benchmarks.posteriors import NUM_DRAWS, SAMPLERS

CELLS = ["8,1", "8,2", "8,4", "80,1", "80,2", "80,4", "800,1", "800,2", "800,4", "80,40", "800,400"]
SIGMA_MIN = 0.05
SAMPLER = ns.Multistep(num_steps=24, order=3)  # draws of the prior


class Problem(NamedTuple):
    """
    - **weights** - of the components of the prior, shape `(25,)`.
    - **operator** - `A`, shape `(dim_y, dim)`.
    - **noise** - standard deviation of the noise, shape `()`.
    - **y** - the data, shape `(dim_y,)`.
    """

    weights: Array
    operator: Array
    noise: Array
    y: Array


def means_of(dim: int) -> np.ndarray:
    i, j = np.meshgrid(np.arange(-2, 3), np.arange(-2, 3))
    pairs = -8.0 * np.stack([i.ravel(), j.ravel()], axis=1)
    return np.tile(pairs, dim // 2).astype(np.float32)


def make_problem(seed: int, dim: int, dim_y: int) -> Problem:
    rng = np.random.default_rng([seed, dim, dim_y])
    weights = rng.normal(size=25) ** 2
    weights /= weights.sum()
    left, _, right = np.linalg.svd(rng.normal(size=(dim_y, dim)), full_matrices=False)
    singular = np.sort(rng.uniform(size=dim_y))[::-1]
    operator = left @ np.diag(singular) @ right
    noise = rng.uniform() * singular.max()
    x = means_of(dim)[rng.choice(25, p=weights)] + rng.normal(size=dim)
    y = operator @ x + noise * rng.normal(size=dim_y)
    return Problem(*(jnp.asarray(a, jnp.float32) for a in (weights, operator, noise, y)))


def denoiser(weights: Array, x: Array, sigma: Array) -> Array:
    """`E[x_0 | x_0 + sigma z = x]` for unit covariances."""
    means = jnp.asarray(means_of(len(x)))
    variance = 1 + sigma**2
    logits = jnp.log(weights) + (means @ x - jnp.sum(means**2, axis=1) / 2) / variance
    mean = jax.nn.softmax(logits) @ means
    return mean + (x - mean) / variance


def velocity(weights: Array, x_t: Array, t: Array) -> Array:
    """`E[z - x_0 | (1 - t) x_0 + t z = x_t]` for unit covariances."""
    means = jnp.asarray(means_of(len(x_t)))
    variance = (1 - t) ** 2 + t**2
    residuals = x_t - (1 - t) * means
    logits = jnp.log(weights) - jnp.sum(residuals**2, axis=1) / (2 * variance)
    return jax.nn.softmax(logits) @ ((2 * t - 1) / variance * residuals - means)


def prior_of(weights: Array, dim: int, flow: bool = False) -> ns.DiffusionPrior:
    ends = SIGMA_MIN, 80 * dim**0.5
    if flow:
        process = ns.RectifiedFlow(*(sigma / (1 + sigma) for sigma in ends))
        function = ns.processes.VelocityPrediction(partial(velocity, weights))
    else:
        process = ns.VarianceExploding(*ends)
        function = partial(denoiser, weights)
    return ns.DiffusionPrior(function, process, dim, sampler=SAMPLER)


def model(problem: Problem, flow: bool = False) -> None:
    x = numpyro.sample("x", prior_of(problem.weights, problem.operator.shape[1], flow))
    mean = problem.operator @ x
    numpyro.sample("y", dist.Normal(mean, problem.noise).to_event(1), obs=problem.y)


def exact_posterior(problem: Problem, key: Array, num_draws: int) -> Array:
    """Draws of the posterior, in double precision on the host."""
    weights, operator, noise, y = (np.asarray(a, np.float64) for a in problem)
    dim_y, dim = operator.shape
    means = means_of(dim).astype(np.float64)
    marginal = operator @ operator.T + noise**2 * np.eye(dim_y)
    residuals = y - means @ operator.T
    solved = np.linalg.solve(marginal, residuals.T).T
    logits = np.log(weights) - (residuals * solved).sum(axis=1) / 2
    p = np.exp(logits - logits.max())
    rng = np.random.default_rng(np.asarray(random.key_data(key)))
    component = rng.choice(25, size=num_draws, p=p / p.sum())
    # Matheron's rule: a draw of the component, moved by its own residual.
    x = means[component] + rng.normal(size=(num_draws, dim))
    residuals = y + noise * rng.normal(size=(num_draws, dim_y)) - x @ operator.T
    return jnp.asarray(x + np.linalg.solve(marginal, residuals.T).T @ operator, jnp.float32)


def distance(x: Array, y: Array) -> float:
    found = ns.diagnostics.sliced_wasserstein(x, y, key=random.key(0), num_projections=100)
    return float(found.statistic)


def run_cell(
    dim: int, dim_y: int, names: list[str], num_problems: int, kinds: tuple[str, ...]
) -> dict[str, Any]:
    """Prints and returns the means of the problems, of each sampler with each kind of prior."""
    samplers = {}
    for kind in kinds:
        flow = kind == "velocity"
        prior = prior_of(jnp.full(25, 1 / 25), dim, flow)
        for name in names:
            samplers[f"{name}, {kind}"] = SAMPLERS[name](partial(model, flow=flow), prior)
    floor, found = [], {name: [] for name in samplers}
    for seed in range(num_problems):
        problem = make_problem(seed, dim, dim_y)
        key_exact, key_other, key_draw = random.split(random.key(seed), 3)
        exact = exact_posterior(problem, key_exact, NUM_DRAWS)
        floor.append(distance(exact, exact_posterior(problem, key_other, NUM_DRAWS)))
        for name, draw in samplers.items():
            seconds, posterior = timed(draw, key_draw, problem)
            _, num_evals, num_prior_evals, _ = posterior
            row = distance(exact, posterior.x), num_evals, num_prior_evals, seconds
            found[name].append(row)
    print(f"dim {dim}, dim_y {dim_y}, {num_problems} problems: exact {np.mean(floor):.3f}")
    for name, rows in found.items():
        mean, num_evals, num_prior_evals, _ = np.mean(rows, axis=0)
        seconds = np.median(rows, axis=0)[-1]
        print(
            f"  {name:33}{mean:6.3f} {num_evals:7.0f} + {num_prior_evals:.0f} evaluations a draw, "
            f"{seconds:.1f} s",
            flush=True,
        )
    return {"dim": dim, "dim_y": dim_y, "exact": floor} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=count, default=20, help="problems in a cell")
    parser.add_argument("--cells", nargs="*", type=sizes, help="such as 8,1 800,4; all by default")
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=list(SAMPLERS)[:2])
    parser.add_argument("--flow", action="store_true", help="by the velocity of straight paths too")
    parser.add_argument("--output", type=Path, metavar="FILE", help="a line of JSON for each cell")
    args = parser.parse_args()
    cells = args.cells or map(sizes, CELLS)
    kinds = ("denoiser", "velocity") if args.flow else ("denoiser",)
    print("sliced Wasserstein distance to exact draws, mean of the problems")
    for dim, dim_y in cells:
        found = run_cell(dim, dim_y, args.samplers, args.problems, kinds)
        if args.output is not None:
            with args.output.open("a") as file:
                file.write(json.dumps(found, default=float) + "\n")


if __name__ == "__main__":
    main()
