# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The mixtures of `benchmarks.inverse` (Cardoso et al., arXiv 2308.07983, Table 1)."""

from collections.abc import Iterator

import jax.numpy as jnp
from jax import random

from benchmarks import inverse
from benchmarks.exact.problems import Cell
from benchmarks.posteriors import NUM_DRAWS

DISTANCE = "sliced Wasserstein"
COLUMNS = ("TemperedSMC", "TwistedDiffusionSampler")
COLUMNS_IN_FULL = (
    *COLUMNS,
    "MomentMatching",
    "AnnealedLangevin",
    "DiffusionPosteriorSampling",
    "DAPS",
)


def cells(full: bool) -> Iterator[Cell]:
    sizes = [(8, 1), (8, 2), (8, 4), (80, 1), (80, 2), (80, 4), (800, 1), (800, 2), (800, 4)]
    for dim, dim_y in sizes if full else [(8, 4)]:
        yield cell(dim, dim_y, 20 if full else 1, COLUMNS_IN_FULL if full else COLUMNS)


def cell(dim: int, dim_y: int, num_problems: int, columns: tuple[str, ...]) -> Cell:
    problems = [inverse.make_problem(seed, dim, dim_y) for seed in range(num_problems)]
    known = {}

    def exact(i, key, num_draws):
        return inverse.exact_posterior(problems[i], key, num_draws)

    def figures(i, x):
        if i not in known:
            known[i] = exact(i, random.key(i), NUM_DRAWS)
        return {DISTANCE: inverse.distance(known[i], x)}

    return Cell(
        f"mixture of 25, {dim} numbers, {dim_y} data",
        inverse.model,
        inverse.prior_of(jnp.full(25, 1 / 25), dim),
        [(problem,) for problem in problems],
        exact,
        figures,
        NUM_DRAWS,
        columns,
    )
