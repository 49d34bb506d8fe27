# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The face that all sets of solved problems share, and a run of samplers on one of their cells."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array, random

import numpyro_scores as ns
from benchmarks.posteriors import SAMPLERS, Draw, Posterior

Figures = dict[str, float]
EXACT = "exact draws"


class Cell(NamedTuple):
    """
    Problems of one kind, whose posteriors are known.

    - **name** - what is printed.
    - **model** - a NumPyro model with the latent site `x`.
    - **prior** - its diffusion prior, with an exact denoiser; None for discrete sites.
    - **problems** - the arguments of the model for each problem: the data above all.
    - **exact** - `exact(i, key, num_draws)`: draws of the posterior of problem `i`.
    - **figures** - `figures(i, x)`: how far draws are from that posterior, by name. What is not a
      number that is finite is an error of the benchmark, and fails.
    - **num_draws** - of each sampler, for each problem.
    - **samplers** - names of the columns, keys of `makers`.
    - **published** - by method, what papers report, by the names of the figures.
    - **draws_of** - of samplers that make another number of draws than the rest, by name.
    - **makers** - by name, functions of model, prior and number of draws that return a
      :data:`~benchmarks.posteriors.Draw`.
    """

    name: str
    model: Callable
    prior: ns.DiffusionPrior | None
    problems: Sequence[tuple]
    exact: Callable[[int, Array, int], Array]
    figures: Callable[[int, Any], Figures]
    num_draws: int
    samplers: Sequence[str]
    published: Mapping[str, Figures] = {}
    makers: Mapping[str, Callable[..., Draw]] = SAMPLERS
    draws_of: Mapping[str, int] = {}


class Row(NamedTuple):
    """
    - **method** - a sampler, exact draws, or a method of a paper.
    - **figures** - means over the problems.
    - **errors** - standard errors of these means, NaN for one problem.
    - **num_evals** - evaluations a draw, NaN for exact draws and papers.
    - **is_published** - whether a paper reports it.
    - **num_draws** - of each problem.
    - **cpu_seconds**, **wall_seconds** - of the row, the reference and the compilation included.
    """

    method: str
    figures: Figures
    errors: Figures
    num_evals: float = np.nan
    is_published: bool = False
    num_draws: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


def of_model(model: Callable, maker: Callable[..., Draw]) -> Callable[..., Draw]:
    """A sampler of another model of the same posterior, such as of a prior made of an energy."""
    return lambda _, prior, num_draws: maker(model, prior, num_draws)


class Programs:
    """Samplers by model, so that cells of one model share what was compiled."""

    def __init__(self) -> None:
        self._made: dict[Any, Draw] = {}

    def draw(self, cell: Cell, name: str) -> Draw:
        num_draws = cell.draws_of.get(name, cell.num_draws)
        key = cell.model, name, num_draws
        if key not in self._made:
            self._made[key] = cell.makers[name](cell.model, cell.prior, num_draws)
        return self._made[key]


def run_cell(
    cell: Cell, programs: Programs, samplers: Sequence[str] | None = None
) -> Iterator[Row]:
    """The rows of a cell: exact draws, the samplers, and what is published."""
    yield _row(cell, EXACT, lambda key, i: Posterior(cell.exact(i, key, cell.num_draws), np.nan))
    for name in cell.samplers:
        if samplers is None or name in samplers:
            draw = programs.draw(cell, name)
            yield _row(cell, name, lambda key, i, draw=draw: draw(key, *cell.problems[i]))
    for method, figures in cell.published.items():
        yield Row(method, dict(figures), dict.fromkeys(figures, np.nan), is_published=True)


def _row(cell: Cell, method: str, draw: Callable[[Array, int], Posterior]) -> Row:
    found, num_evals, num_draws = [], [], 0
    start = time.process_time(), time.perf_counter()
    for i in range(len(cell.problems)):
        posterior = draw(random.fold_in(random.key(i), 1), i)
        figures = cell.figures(i, posterior.x)
        if not all(np.isfinite(value) for value in figures.values()):
            raise ValueError(
                f"{cell.name}, problem {i}: {method} has the figures {figures}, where finite ones "
                "were wanted. A reference or a sampler is broken."
            )
        found.append(figures)
        num_draws = len(posterior.x)
        num_evals.append(posterior.num_evals + posterior.num_prior_evals)
    names = found[0]
    values = {name: np.array([figures[name] for figures in found]) for name in names}
    root = len(found) ** 0.5
    errors = {
        name: float(x.std(ddof=1) / root) if root > 1 else np.nan for name, x in values.items()
    }
    means = {name: float(x.mean()) for name, x in values.items()}
    seconds = time.process_time() - start[0], time.perf_counter() - start[1]
    return Row(method, means, errors, float(np.mean(num_evals)), False, num_draws, *seconds)
