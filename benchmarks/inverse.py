# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Posterior samplers on linear inverse problems with a known answer (Cardoso et al., arXiv 2308.07983,
Table 1): the prior is a mixture of 25 Gaussians in `dim` dimensions, known by its exact denoiser,
`dim_y` linear functions of a point are measured with noise, and the posterior is a mixture again.

The figure is the sliced Wasserstein distance of the draws to exact ones, beside that of two exact
sets ("exact"), the floor; and the number of score evaluations for each kept draw, draws of the
prior included. `--extra` adds cells with `dim_y = dim / 2`.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import MCMC

import numpyro_scores as ns

CELLS = [(dim, dim_y) for dim in (8, 80, 800) for dim_y in (1, 2, 4)]
EXTRA_CELLS = [(8, 4), (80, 40), (800, 400)]
NUM_DRAWS = 2_000
SIGMA_MIN = 0.05
NUM_SAMPLE_STEPS = 12


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


def prior_of(weights: Array, dim: int) -> ns.DiffusionPrior:
    process = ns.VarianceExploding(sigma_min=SIGMA_MIN, sigma_max=80 * dim**0.5)
    return ns.DiffusionPrior(
        partial(denoiser, weights), process, dim, num_sample_steps=NUM_SAMPLE_STEPS
    )


def model(problem: Problem) -> None:
    x = numpyro.sample("x", prior_of(problem.weights, problem.operator.shape[1]))
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


def tempered(num_prior_draws: int) -> Callable:
    smc = ns.TemperedSMC(
        model, NUM_DRAWS, num_prior_draws=num_prior_draws, progress_bar=False, batch_size=NUM_DRAWS
    )

    def draw(problem, key):
        smc.run(key, problem)
        cost_of_prior = 4 * NUM_SAMPLE_STEPS * num_prior_draws / NUM_DRAWS
        return smc.get_samples()["x"], smc.num_grad_evals, cost_of_prior

    return draw


def twisted(**settings) -> Callable:
    sampler = ns.TwistedDiffusionSampler(model, NUM_DRAWS, progress_bar=False, **settings)

    def draw(problem, key):
        sampler.run(key, problem)
        return sampler.get_samples()["x"], sampler.num_grad_evals, 0

    return draw


def annealed() -> Callable:
    mcmc = MCMC(
        ns.AnnealedLangevin(model, num_levels=100, num_steps=1),
        num_warmup=0,
        num_samples=1,
        num_chains=NUM_DRAWS,
        chain_method="vectorized",
        jit_model_args=True,
        progress_bar=False,
    )

    def draw(problem, key):
        mcmc.run(key, problem, extra_fields=("num_grad_evals",))
        cost = float(np.mean(mcmc.get_extra_fields()["num_grad_evals"]))
        return mcmc.get_samples()["x"], cost, 0

    return draw


# A column is a function of a problem and a key that returns `NUM_DRAWS` draws, the score
# evaluations that each has cost, and those of the draws of the prior behind it.
COLUMNS = {
    "tempered": lambda: tempered(2 * NUM_DRAWS),
    "tempered20k": lambda: tempered(10 * NUM_DRAWS),
    "twisted": twisted,
    "annealed": annealed,
}


def distance(x: Array, y: Array) -> float:
    found = ns.diagnostics.sliced_wasserstein(x, y, key=random.key(0), num_projections=100)
    return float(found.statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=20, help="problems in a cell")
    parser.add_argument("--cells", nargs="*", help="such as 8,1 800,4; all nine by default")
    parser.add_argument("--extra", action="store_true", help="also dim_y = dim / 2")
    parser.add_argument(
        "--columns", nargs="*", choices=COLUMNS, default=["tempered", "tempered20k", "twisted"]
    )
    args = parser.parse_args()
    cells = CELLS + EXTRA_CELLS * args.extra
    if args.cells:
        cells = [tuple(map(int, cell.split(","))) for cell in args.cells]
    print(
        f"sliced Wasserstein distance, mean of {args.problems} problems, and in brackets score "
        "evaluations a draw (+ those of its prior draws) and seconds a problem"
    )
    for dim, dim_y in cells:
        found: dict[str, list] = {name: [] for name in ["exact", *args.columns]}
        draws = {name: COLUMNS[name]() for name in args.columns}
        for seed in range(args.problems):
            problem = make_problem(seed, dim, dim_y)
            key_exact, key_other, key_draw = random.split(random.key(seed), 3)
            exact = exact_posterior(problem, key_exact, NUM_DRAWS)
            other = exact_posterior(problem, key_other, NUM_DRAWS)
            found["exact"].append((distance(exact, other), 0, 0, 0))
            for name in args.columns:
                start = time.perf_counter()
                x, cost, cost_of_prior = draws[name](problem, key_draw)
                seconds = time.perf_counter() - start
                found[name].append((distance(exact, x), cost, cost_of_prior, seconds))
        row = [f"{dim:4d},{dim_y:3d}"]
        for name, values in found.items():
            mean, cost, cost_of_prior, _ = np.mean(values, axis=0)
            seconds = np.median([value[3] for value in values])
            price = f" ({cost:.0f}+{cost_of_prior:.0f}, {seconds:.1f} s)"
            row.append(f"{name} {mean:.3f}" + price * (name != "exact"))
        print("  ".join(row), flush=True)


if __name__ == "__main__":
    main()
