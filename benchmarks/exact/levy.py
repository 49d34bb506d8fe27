# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Signals that are running sums of independent increments, measured in four ways (Zach et al., "A
statistical benchmark for diffusion posterior sampling algorithms", arXiv 2509.12821).

Printed are how many dB more squared error the mean of the draws has than the exact posterior mean,
and the posterior's mass in the intervals that 90% of further draws would be in, the mean of all
numbers. The dB are those that are expected over all signals with these data, which follow from the
two means and the posterior variance, less what so few draws would have if they were exact.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from jax.tree_util import Partial
from jax.typing import ArrayLike

import numpyro_scores as ns
from benchmarks.exact.levy_prior import LIMIT, Increments, denoise, energy, increments
from benchmarks.exact.levy_reference import gibbs, lattice_posterior
from benchmarks.exact.problems import Cell, of_model
from benchmarks.posteriors import SAMPLERS, noise_level

EXCESS, COVERED = "excess of squared error, dB", "in 90% intervals"
PROCESS = ns.VarianceExploding(sigma_min=0.01, sigma_max=150.0)
SIGNAL_TO_NOISE = 25.0
# Chains are made longer until they agree.
LARGEST_R_HAT, GIBBS_LENGTHS = 1.03, (700, 3_000, 12_000)
COLUMNS = ("NoiseLevelSMC",)
# Minutes each: most compile at every run, and take up to thousands of gradients a draw.
COLUMNS_IN_FULL = (
    *COLUMNS,
    "DiffusionPosteriorSampling",
    "MomentMatching",
    "DAPS",
    "AnnealedLangevin",
    "SplitGibbs",
)
METHODS = ("C-DPS", "DiffPIR", "DPnP")
# Gauss, Laplace, Bernoulli-Laplace, Student, for each method.
PUBLISHED = {
    "identity": [(0.12, 0.12, 2.22, 3.26), (0.16, 0.09, 0.72, 0.93), (0.24, 0.11, 1.33, 1.19)],
    "blur": [(0.12, 0.12, 4.30, 18.30), (0.07, 0.07, 1.09, 10.45), (0.10, 0.13, 1.71, 7.84)],
}


class Problem(NamedTuple):
    """
    - **law** - of the increments.
    - **operator** - square, with rows of zeros where nothing is measured, shape `(length, length)`.
    - **noise** - standard deviation of the noise, shape `()`.
    - **y** - the data, zero where nothing is measured, shape `(length,)`.
    """

    law: Increments
    operator: Array
    noise: Array
    y: Array


def laws(length: int) -> dict[str, Increments]:
    """The papers' scales, in units in which 32 is beyond what signals of this length reach."""
    unit = (64 / length) ** 0.5
    return {
        "Gauss": increments(unit * 0.5 * LIMIT / 20, gauss=1.0),
        "Laplace": increments(unit * LIMIT / 50, laplace=1.0),
        "Bernoulli-Laplace": increments(unit * LIMIT / 20, zero=0.9, laplace=0.1),
        "Student": increments(64 / length * LIMIT / 128, cauchy=1.0),
    }


def operators(length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    identity = np.eye(length)
    taps = min(13, length - 1)
    kernel = np.exp(-(((np.arange(taps) - taps // 2) / 2.0) ** 2) / 2)
    kernel /= kernel.sum()
    blur = sum(w * np.roll(identity, k - taps // 2, axis=0) for k, w in enumerate(kernel))
    mask = rng.uniform(size=length) < 0.4
    # Real parts, then imaginary ones, orthonormal; the low frequencies and some of the others.
    frequency = np.arange(length // 2 + 1)
    seen = (frequency < 5) | (rng.uniform(size=len(frequency)) < 0.4)
    phase = 2 * np.pi * np.outer(frequency[seen], np.arange(length)) / length
    size = np.where((frequency[seen] == 0) | (2 * frequency[seen] == length), 1.0, 2.0**0.5)
    rows = np.concatenate([size[:, None] * np.cos(phase), size[:, None] * np.sin(phase)])
    rows = rows[np.abs(rows).max(axis=1) > 1e-9] / length**0.5
    fourier = np.zeros((length, length))
    fourier[: len(rows)] = rows
    return {"identity": identity, "blur": blur, "mask": np.diag(mask * 1.0), "Fourier": fourier}


def draw_signals(law: Increments, rng: np.random.Generator, num: int, length: int) -> np.ndarray:
    """Signals that stay within the limits."""
    zero, gauss, laplace, _, scale = (float(a) for a in law)
    kept: list[np.ndarray] = []
    while len(kept) < num:
        u = rng.normal(size=length) if gauss else rng.laplace(size=length)
        u = u if gauss or laplace else rng.standard_cauchy(size=length)
        x = np.cumsum(scale * u * (rng.uniform(size=length) >= zero))
        if np.abs(x).max() < LIMIT:
            kept.append(x)
    return np.stack(kept)


def make_problems(law: Increments, operator: np.ndarray, num: int) -> list[Problem]:
    rng = np.random.default_rng(1)
    length = len(operator)
    signals = draw_signals(law, rng, 200, length)
    used = np.abs(operator).max(axis=1) > 0
    power = np.median(np.mean((signals @ operator[used].T) ** 2, axis=1))
    if power == 0:
        raise ValueError(f"More than half of the signals of {length} numbers measure as zero.")
    noise = (power / 10 ** (SIGNAL_TO_NOISE / 10)) ** 0.5
    y = signals[:num] @ operator.T + noise * used * rng.normal(size=(num, length))
    arrays = [jnp.asarray(a, jnp.float32) for a in (operator, noise)]
    return [Problem(law, *arrays, jnp.asarray(row, jnp.float32)) for row in y]


def model(problem: Problem) -> None:
    prior = ns.DiffusionPrior(Partial(denoise, problem.law), PROCESS, problem.y.shape)
    x = jnp.asarray(numpyro.sample("x", prior))
    numpyro.sample("y", dist.Normal(problem.operator @ x, problem.noise).to_event(1), obs=problem.y)


def energy_model(problem: Problem) -> None:
    """The same posterior, of a prior that is given by its energy."""
    prior = ns.DiffusionPrior(Partial(energy, problem.law), PROCESS, problem.y.shape)
    x = jnp.asarray(numpyro.sample("x", prior))
    numpyro.sample("y", dist.Normal(problem.operator @ x, problem.noise).to_event(1), obs=problem.y)


def reference(
    problem: Problem, seed: int, num_draws: int = 4_000, level: float = PROCESS.sigma_min
) -> np.ndarray:
    """
    Draws of the posterior of a signal with noise of the smallest level, which is what the model
    has, shape `(num_draws, length)`.

    :raises ValueError: if the chains of Gibbs sampling differ.
    """
    operator, noise, y = (np.asarray(a, np.float64) for a in problem[1:])
    used = np.abs(operator).max(axis=1) > 0
    covariance = noise**2 * np.eye(used.sum()) + level**2 * operator[used] @ operator[used].T
    observed = np.diag(operator) > 0
    if np.array_equal(operator, np.diag(observed * 1.0)):
        total = float(np.hypot(noise, level))
        x = lattice_posterior(problem.law, observed, y, total, num_draws, seed)
    else:
        root = np.linalg.cholesky(covariance)
        x = _of_chains(
            problem.law,
            np.linalg.solve(root, operator[used]),
            np.linalg.solve(root, y[used]),
            num_draws,
            seed,
        )
    # The noise given the signal and the data, by Matheron's rule.
    rng = np.random.default_rng([seed, 1])
    added = level * rng.normal(size=x.shape)
    residual = y[used] - (x + added) @ operator[used].T
    residual -= noise * rng.normal(size=residual.shape)
    return x + added + level**2 * np.linalg.solve(covariance, residual.T).T @ operator[used]


def _of_chains(law, operator, y, num_draws, seed):
    """Draws of Gibbs sampling of a signal measured with unit noise."""
    for length in GIBBS_LENGTHS:
        chains = gibbs(law, operator, y, 1.0, num_draws=length, seed=seed)
        if chains.r_hat < LARGEST_R_HAT:
            x = chains.draws.reshape(-1, operator.shape[1])
            return x[np.random.default_rng(seed).permutation(len(x))[:num_draws]]
    raise ValueError(
        f"The chains of the Gibbs reference have not met: R-hat {chains.r_hat:.3f} after "
        f"{GIBBS_LENGTHS[-1]} draws, where {LARGEST_R_HAT} at most was wanted."
    )


def figures(exact: np.ndarray, x: ArrayLike) -> dict[str, float]:
    draws = np.asarray(x, np.float64)
    num = len(draws)
    total = exact.var(axis=0).sum()
    squared = ((draws.mean(axis=0) - exact.mean(axis=0)) ** 2).sum()
    # What exact draws would have, so few of them, and as many as the reference has.
    squared -= draws.var(axis=0, ddof=1).sum() / num + total / len(exact)
    # Between these two of the sorted draws a further one is with a probability of 0.9.
    k = round((num + 1) / 20)
    low, high = np.sort(draws, axis=0)[[k - 1, num - k]]
    inside = np.mean((exact > low) & (exact < high)) + np.mean((exact == low) | (exact == high)) / 2
    return {EXCESS: 10 * np.log10(max(1 + squared / total, 1e-3)), COVERED: float(inside)}


MAKERS = SAMPLERS | {"NoiseLevelSMC": of_model(energy_model, noise_level)}


def cells(full: bool) -> Iterator[Cell]:
    for law_name in laws(64):
        for name in operators(64):
            yield cell(law_name, name, full)


def cell(law_name: str, name: str, full: bool) -> Cell:
    length = 64 if full else 16
    law, operator = laws(length)[law_name], operators(length)[name]
    prior = ns.DiffusionPrior(partial(denoise, law), PROCESS, length)
    column = list(laws(length)).index(law_name)
    problems = make_problems(law, operator, 20 if full else 1)
    known: dict[int, np.ndarray] = {}

    def exact(i: int) -> np.ndarray:
        if i not in known:
            known[i] = reference(problems[i], i)
        return known[i]

    def draws(i: int, key: Array, num_draws: int) -> Array:
        chosen = random.choice(key, len(exact(i)), (num_draws,), replace=False)
        return jnp.asarray(exact(i)[np.asarray(chosen)])

    rows = zip(METHODS, PUBLISHED.get(name, ()), strict=False)
    return Cell(
        f"{law_name} increments, {length} numbers, {name}",
        model,
        prior,
        [(problem,) for problem in problems],
        draws,
        lambda i, x: figures(exact(i), x),
        # Where increments are mostly zero, few particles come down the noise levels.
        1_000 if full or law_name.startswith("Bernoulli") else 400,
        COLUMNS_IN_FULL if full else COLUMNS,
        {method: {EXCESS: values[column]} for method, values in rows},
        MAKERS,
        dict.fromkeys(SAMPLERS, 199 if full else 19),
    )
