# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Two moons, and the potential of Mueller and Brown: do draws by the reverse process, with fresh noise
on the way or without, and Langevin draws at the smallest level agree? A part of
:mod:`benchmarks.noise_energy`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
from flax import nnx
from jax import Array, random
from numpyro.infer import MCMC

import numpyro_scores as ns
from benchmarks.noise_energy import PAIRS, trained

Points = Callable[[int, np.random.Generator], np.ndarray]
NUM_CHAINS, NUM_WARMUP, NUM_HEUN_STEPS, CHURN = 400, 200, 64, 20.0
PROCESS = ns.VarianceExploding(sigma_min=0.05, sigma_max=10.0)


def moons(num: int, rng: np.random.Generator) -> np.ndarray:
    angle, side = np.pi * rng.random(num), rng.integers(2, size=num)
    x = np.stack([np.cos(angle), np.sin(angle)], -1)
    x = np.where(side[:, None] == 0, x, [1.0, 0.5] - x) + rng.normal(scale=0.1, size=(num, 2))
    return (x - [0.5, 0.25]) / [0.87, 0.5]


def mueller_brown(num: int, rng: np.random.Generator) -> np.ndarray:
    """Draws from a fine grid, at a temperature at which both deep wells are met."""
    heights, a, b = [-200, -100, -170, 15], [-1, -1, -6.5, 0.7], [0, 0, 11, 0.6]
    c, x0, y0 = [-10, -10, -6.5, 0.7], [1, 0, -0.5, -1], [0, 0.5, 1.5, 1]
    x, y = np.linspace(-1.7, 1.3, 600), np.linspace(-0.5, 2.1, 600)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1)
    potential = np.zeros(grid.shape[:2])
    for height, xx, xy, yy, u, v in zip(heights, a, b, c, x0, y0, strict=True):
        dx, dy = grid[..., 0] - u, grid[..., 1] - v
        potential += height * np.exp(xx * dx**2 + xy * dx * dy + yy * dy**2)
    p = np.exp(-(potential - potential.min()) / 25.0).ravel()
    chosen = grid.reshape(-1, 2)[rng.choice(p.size, num, p=p / p.sum())]
    chosen = chosen + (rng.random((num, 2)) - 0.5) * [x[1] - x[0], y[1] - y[0]]
    return (chosen - [-0.1, 0.6]) / [0.6, 0.55]


def jensen_shannon(a: np.ndarray, b: np.ndarray, num_bins: int = 40) -> float:
    """Of two clouds in the plane, in nats, on a grid of cells."""
    edges = [np.quantile(np.concatenate([a, b])[:, i], [0.0005, 0.9995]) for i in range(2)]
    edges = [np.linspace(*ends, num_bins + 1) for ends in edges]
    p, q = (np.histogram2d(*x.T, bins=edges)[0].ravel() / len(x) for x in (a, b))
    m = (p + q) / 2

    def relative(p):
        return np.sum(p[p > 0] * np.log(p[p > 0] / m[p > 0]))

    return (relative(p) + relative(q)) / 2


class Learned(NamedTuple):
    """
    - **prior** - of an energy that was trained on data about their mean.
    - **centre** - that mean, shape `(2,)`.
    - **seconds** - of CPU, of the training.
    """

    prior: ns.DiffusionPrior
    centre: np.ndarray
    seconds: float


def learned(make: Points, rng: np.random.Generator, num_steps: int, seed: int) -> Learned:
    """The energy of all noise levels, from 50,000 points."""
    data = make(50_000, rng).astype(np.float32)
    centre, scale = data.mean(axis=0), float(data.std())
    energy, seconds = trained(
        ns.nn.MLPNoiseEnergy(
            2, rngs=nnx.Rngs(seed), hidden_features=128, num_layers=3, sigma_data=scale
        ),
        ns.objectives.DualScoreMatching(PROCESS),
        data - centre,
        num_steps,
        seed,
        batch_size=PAIRS,
    )
    return Learned(ns.DiffusionPrior(energy, PROCESS, 2), centre, seconds)


def noisy_points(make: Points, rng: np.random.Generator, centre: np.ndarray, num: int):
    """Further points, with the noise of the smallest level."""
    x = make(num, rng) - centre
    return x + PROCESS.sigma_min * rng.normal(size=x.shape)


def by_reverse_process(
    prior: ns.DiffusionPrior, key: Array, num_draws: int, churn: float = 0.0
) -> np.ndarray:
    """Along the probability flow, or with fresh noise on the way, which forgets its errors."""
    return np.asarray(prior.sample(key, (num_draws,), ns.Heun(NUM_HEUN_STEPS, churn=churn)))


def by_langevin(
    prior: ns.DiffusionPrior, key: Array, starts: np.ndarray, num_draws: int
) -> np.ndarray:
    """At the smallest level, a chain from each of the starts."""

    def model():
        numpyro.sample("x", prior)

    mcmc = MCMC(
        ns.MALA(model),
        num_warmup=NUM_WARMUP,
        num_samples=num_draws // len(starts),
        num_chains=len(starts),
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, init_params={"x": jnp.asarray(starts, jnp.float32)})
    return np.asarray(mcmc.get_samples()["x"])


def plane(num_steps: int, seed: int, num_draws: int = 40_000) -> None:
    for name, make in {"two moons": moons, "Mueller-Brown": mueller_brown}.items():
        rng = np.random.default_rng(seed)
        prior, centre, seconds = learned(make, rng, num_steps, seed)
        truth = noisy_points(make, rng, centre, 2 * num_draws)
        flow = by_reverse_process(prior, random.key(seed), num_draws)
        churned = by_reverse_process(prior, random.key(seed), num_draws, CHURN)
        langevin = by_langevin(prior, random.key(seed), truth[:NUM_CHAINS], num_draws)
        pairs = {
            "flow and Langevin": (flow, langevin),
            "flow and data": (flow, truth[:num_draws]),
            "churned and Langevin": (churned, langevin),
            "churned and data": (churned, truth[:num_draws]),
            "Langevin and data": (langevin, truth[:num_draws]),
            "data and data": (truth[num_draws:], truth[:num_draws]),
        }
        words = ", ".join(f"{name} {jensen_shannon(*pair):.4f}" for name, pair in pairs.items())
        print(f"{name}, seed {seed}, training {seconds:.0f} s; Jensen-Shannon: {words}", flush=True)
