# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Five modes in 8 dimensions, whose density is known at every noise level: the error of an energy's
values and score, the weights of its modes, beside a denoiser that had as much time. A part of
:mod:`benchmarks.noise_energy`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, random
from jax.scipy.special import logsumexp

import numpyro_scores as ns
from benchmarks._rows import Rows
from benchmarks.noise_energy import PAIRS, cost_of_values, trained
from numpyro_scores.diagnostics import level_normalizers

DIM, VARIANCE, NUM_MODES = 8, 0.25, 5
SIGMAS = (0.05, 0.5, 5.0)
PROCESS = ns.VarianceExploding(sigma_min=0.05, sigma_max=60.0)
FILE = Path(".cache/noise_energy/mixture.jsonl")


class Mixture:
    """Modes of means N(0, 16) about their centre and weights from Dirichlet(3), by a seed."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.means = self.rng.normal(scale=4.0, size=(NUM_MODES, DIM))
        self.weights = self.rng.dirichlet(np.full(NUM_MODES, 3.0))
        self.means -= self.weights @ self.means

    def log_density(self, x: Array, sigma: float) -> Array:
        """Of one point with noise."""
        total = VARIANCE + sigma**2
        squares = jnp.sum((x - self.means) ** 2, axis=-1)
        modes = logsumexp(jnp.log(self.weights) - squares / (2 * total))
        return modes - DIM / 2 * jnp.log(2 * jnp.pi * total)

    def draws(self, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Points, and the mode of each."""
        modes = self.rng.choice(NUM_MODES, num, p=self.weights)
        noise = self.rng.normal(scale=VARIANCE**0.5, size=(num, DIM))
        return (self.means[modes] + noise).astype(np.float32), modes


def networks(mixture: Mixture, num_steps: int, seed: int) -> tuple[Any, Any, list[float]]:
    """An energy and a denoiser, and the seconds of their training."""
    data, _ = mixture.draws(50_000)
    options = {"rngs": nnx.Rngs(seed), "hidden_features": 128, "num_layers": 3}
    options["sigma_data"] = float(data.std())
    dual = ns.objectives.DualScoreMatching(PROCESS)
    energy, of_energy = trained(
        ns.nn.MLPNoiseEnergy(DIM, **options), dual, data, num_steps, seed, batch_size=PAIRS
    )
    single = ns.objectives.DenoisingScoreMatching(PROCESS)
    denoiser, of_denoiser = trained(
        ns.nn.MLPDenoiser(DIM, **options), single, data, num_steps, seed
    )
    return energy, denoiser, [of_energy, of_denoiser]


def errors(mixture: Mixture, energy: Any, denoiser: Any) -> dict[str, list[float]]:
    """
    Of each of the noise levels, at 20,000 draws: mean and standard deviation of the error of
    log p, log Z, the total variation of the weights of the modes, and the relative errors of both
    scores.
    """
    priors = [ns.DiffusionPrior(f, PROCESS, DIM) for f in (energy, denoiser)]
    density = jax.jit(jax.vmap(jax.value_and_grad(mixture.log_density), (0, None)))
    x, modes = mixture.draws(20_000)
    found = {}
    for sigma in SIGMAS:
        y = x + sigma * mixture.rng.normal(size=x.shape).astype(np.float32)
        exact, score = density(y, sigma)
        error = np.asarray(priors[0].at(sigma).log_prob(y) - exact, float)
        squares = [np.mean((prior.score(y, sigma) - score) ** 2) for prior in priors]
        relative = np.sqrt(np.asarray(squares) / np.mean(np.square(score)))
        share = np.bincount(modes, np.exp(error), minlength=NUM_MODES)
        variation = np.abs(share / share.sum() - mixture.weights).sum() / 2
        values = [error.mean(), error.std(), np.log(np.mean(np.exp(error))), variation, *relative]
        found[str(sigma)] = [float(value) for value in values]
    return found


COLUMNS = (
    "log p off by",
    "its standard deviation",
    "log Z",
    "total variation of the weights",
    "relative error of the energy's score",
    "of the denoiser's",
)


def measured(num_steps: int, seed: int, further: bool) -> dict[str, Any]:
    mixture = Mixture(seed)
    energy, denoiser, seconds = networks(mixture, num_steps, seed)
    found = {"seconds": seconds} | errors(mixture, energy, denoiser)
    if further:
        x, _ = mixture.draws(1_000)
        cost_of_values(energy, denoiser, PROCESS, x)
        prior = ns.DiffusionPrior(energy, PROCESS, DIM)
        print(level_normalizers(prior, random.key(seed), num_levels=60, num_particles=64))
    return found


def mixture(num_steps: int, seeds: list[int], further: bool = False) -> None:
    """
    The median and the range of each figure over the seeds, of data and training alike. A seed that
    is in the file already is not trained again.

    :param further: whether the cost of values, and log Z by particles, are looked at, too.
    """
    rows = Rows(FILE)
    found = []
    for seed in seeds:
        measure: Callable = partial(measured, num_steps, seed, further)
        name = f"{num_steps} steps, seed {seed}"
        found.append(rows.get(name, measure))
        print(f"five modes in 8-d, {name}: {found[-1]}", flush=True)
    seconds = np.median([row["seconds"] for row in found], axis=0)
    print(f"{len(seeds)} seeds, training {seconds.round(1)} s (energy, denoiser); median (range)")
    for sigma in SIGMAS:
        columns = np.array([row[str(sigma)] for row in found]).T
        for title, values in zip(COLUMNS, columns, strict=True):
            low, middle, high = np.quantile(values, [0, 0.5, 1])
            print(f"  sigma {sigma:4g}, {title}: {middle:+.3f} ({low:+.3f} to {high:+.3f})")
