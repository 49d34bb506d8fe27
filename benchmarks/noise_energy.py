# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How right an energy of every noise level is that dual score matching has learned, where the truth is
known, and beside a denoiser that had as much time.

`mixture`: five modes in 8 dimensions, whose density is known: error of the value and of the score,
the weights of the modes, the cost of values. `plane`: two moons, and the potential of Mueller and
Brown: do draws by the reverse process and Langevin draws at the smallest level agree? `digits`:
denoising of held-out digits, log Z of the levels, cost of values.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from flax import nnx
from jax import random
from jax.scipy.special import logsumexp
from numpyro.infer import MCMC

import numpyro_scores as ns
from benchmarks._timing import timed
from numpyro_scores.diagnostics import level_normalizers

# Of the steps of an energy, how many more a denoiser makes in the time: measured below.
STEP_RATIO = 2


def trained(network: Any, objective: Any, x: np.ndarray, num_steps: int, seed: int, **options: Any):
    """The module, and the seconds of its steps."""
    start = time.perf_counter()
    schedule = optax.cosine_decay_schedule(2e-3, num_steps)
    options = {"optimizer": optax.adam(schedule), "batch_size": 256} | options
    key = random.key(seed)
    fitted = ns.fit(
        network, objective, x, key=key, num_steps=num_steps, progress_bar=False, **options
    )
    return fitted.module, time.perf_counter() - start


def cost_of_values(energy: Any, denoiser: Any, process: Any, x: np.ndarray) -> None:
    """Of an energy, and of a denoiser by the noise path, in one run."""
    seconds = []
    for function in (energy, denoiser):
        prior = ns.DiffusionPrior(function, process, x.shape[1:])
        log_prob = jax.jit(prior.log_prob)
        timed(log_prob, x)
        seconds.append(min(timed(log_prob, x)[0] for _ in range(3)))
    print(
        f"  {len(x)} values: energy {seconds[0]:.4f} s, denoiser by the noise path "
        f"{seconds[1]:.2f} s, {seconds[1] / seconds[0]:.0f} times as long"
    )


# Five modes in 8 dimensions.


def mixture(num_steps: int, seed: int) -> None:
    dim, variance = 8, 0.25
    rng = np.random.default_rng(seed)
    means = rng.normal(scale=4.0, size=(5, dim))
    weights = rng.dirichlet(np.full(5, 3.0))
    means -= weights @ means
    process = ns.VarianceExploding(sigma_min=0.05, sigma_max=60.0)

    def log_density(x, sigma):
        total = variance + sigma**2
        squares = jnp.sum((x - means) ** 2, axis=-1)
        return logsumexp(jnp.log(weights) - squares / (2 * total)) - dim / 2 * jnp.log(
            2 * jnp.pi * total
        )

    def draws(n):
        modes = rng.choice(5, n, p=weights)
        return (means[modes] + rng.normal(scale=variance**0.5, size=(n, dim))).astype(
            np.float32
        ), modes

    data, _ = draws(50_000)
    options = {"rngs": nnx.Rngs(seed), "hidden_features": 128, "num_layers": 3}
    options["sigma_data"] = float(data.std())
    energy, seconds = trained(
        ns.nn.MLPNoiseEnergy(dim, **options),
        ns.objectives.DualScoreMatching(process),
        data,
        num_steps,
        seed,
    )
    denoiser, seconds_denoiser = trained(
        ns.nn.MLPDenoiser(dim, **options),
        ns.objectives.DenoisingScoreMatching(process),
        data,
        STEP_RATIO * num_steps,
        seed,
    )
    print(f"five modes in 8-d, seed {seed}: training {seconds:.0f} s and {seconds_denoiser:.0f} s")
    priors = [ns.DiffusionPrior(f, process, dim) for f in (energy, denoiser)]
    found = level_normalizers(priors[0], random.key(seed))
    print(found)
    x, modes = draws(20_000)
    for sigma in (0.05, 0.5, 5.0):
        y = x + sigma * rng.normal(size=x.shape).astype(np.float32)
        exact, score = jax.jit(jax.vmap(jax.value_and_grad(log_density), (0, None)))(y, sigma)
        error = np.asarray(priors[0].at(sigma).log_prob(y) - exact, float)
        errors = [np.mean((p.score(y, sigma) - score) ** 2) for p in priors]
        relative = np.sqrt(np.asarray(errors) / np.mean(np.square(score)))
        share = np.bincount(modes, np.exp(error), minlength=5)
        print(
            f"  sigma {sigma:4g}: log p off by {error.mean():+.3f} +- {error.std():.3f}, with "
            f"log Z of the level {error.mean() - float(found(sigma)):+.3f}; exact log Z "
            f"{np.log(np.mean(np.exp(error))):+.3f}; weights of the modes, total variation "
            f"{np.abs(share / share.sum() - weights).sum() / 2:.3f}; relative error of the score "
            f"{relative[0]:.3f}, denoiser's {relative[1]:.3f}"
        )
    cost_of_values(energy, denoiser, process, x[:1_000])


# Two dimensions.


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


def plane(num_steps: int, seed: int, num_draws: int = 40_000) -> None:
    process = ns.VarianceExploding(sigma_min=0.05, sigma_max=10.0)
    for name, make in {"two moons": moons, "Mueller-Brown": mueller_brown}.items():
        rng = np.random.default_rng(seed)
        data = make(50_000, rng).astype(np.float32)
        centre, scale = data.mean(axis=0), float(data.std())
        energy, seconds = trained(
            ns.nn.MLPNoiseEnergy(
                2, rngs=nnx.Rngs(seed), hidden_features=128, num_layers=3, sigma_data=scale
            ),
            ns.objectives.DualScoreMatching(process),
            data - centre,
            num_steps,
            seed,
        )
        prior = ns.DiffusionPrior(energy, process, 2)

        def model(prior=prior):
            numpyro.sample("x", prior)

        truth = make(2 * num_draws, rng) - centre
        truth += process.sigma_min * rng.normal(size=truth.shape)
        reverse = np.asarray(prior.sample(random.key(seed), (num_draws,), ns.Heun(64)))
        mcmc = MCMC(
            ns.MALA(model),
            num_warmup=200,
            num_samples=num_draws // 400,
            num_chains=400,
            chain_method="vectorized",
            progress_bar=False,
        )
        starts = jnp.asarray(truth[:400], jnp.float32)
        mcmc.run(random.key(seed), init_params={"x": starts})
        langevin = np.asarray(mcmc.get_samples()["x"])
        pairs = {
            "draws and Langevin": (reverse, langevin),
            "draws and data": (reverse, truth[:num_draws]),
            "Langevin and data": (langevin, truth[:num_draws]),
            "data and data": (truth[num_draws:], truth[:num_draws]),
        }
        words = ", ".join(f"{name} {jensen_shannon(*pair):.4f}" for name, pair in pairs.items())
        print(f"{name}, seed {seed}, training {seconds:.0f} s; Jensen-Shannon: {words}")


# Digits.


def denoising_error(denoise: Callable, x: np.ndarray, sigma: float) -> float:
    """Root mean square, with the same noise for all."""
    noise = np.random.default_rng(0).normal(size=(8, *x.shape)).astype(np.float32)
    y = (x + sigma * noise).reshape(-1, *x.shape[1:])
    found = np.asarray(jax.jit(lambda y: denoise(y, sigma))(y)).reshape(noise.shape)
    return float(np.sqrt(np.mean((found - x) ** 2)))


def digits(num_steps: int, seed: int) -> None:
    from examples.digits_deblurring import load_pictures

    process = ns.VarianceExploding(sigma_min=0.08, sigma_max=10.0)
    pictures, held_out = load_pictures(seed)
    mean = pictures.mean(axis=0)
    pictures, held_out = pictures - mean, held_out - mean
    options = {"rngs": nnx.Rngs(seed), "hidden_features": 128, "num_layers": 3}
    options["sigma_data"] = float(pictures.std())
    kinds = {
        "energy": (ns.nn.MLPNoiseEnergy, ns.objectives.DualScoreMatching, num_steps),
        "denoiser": (
            ns.nn.MLPDenoiser,
            ns.objectives.DenoisingScoreMatching,
            STEP_RATIO * num_steps,
        ),
    }
    modules = {}
    for name, (network, objective, steps) in kinds.items():
        optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=0.3)
        modules[name], seconds = trained(
            network((8, 8), **options),
            objective(process),
            pictures,
            steps,
            seed,
            optimizer=optimizer,
            batch_size=128,
            ema_decay=0.9995,
        )
        prior = ns.DiffusionPrior(modules[name], process, (8, 8))
        errors = [denoising_error(prior.denoise, held_out, sigma) for sigma in (0.1, 0.3, 1.0)]
        words = " / ".join(f"{error:.4f}" for error in errors)
        print(
            f"digits, {name}, {steps} steps, {seconds:.0f} s: error of held-out digits at noise "
            f"0.1 / 0.3 / 1: {words}"
        )
    prior = ns.DiffusionPrior(modules["energy"], process, (8, 8))
    x = held_out + process.sigma_min * np.random.default_rng(1).normal(size=held_out.shape)
    x = x.astype(np.float32)
    found = ns.diagnostics.conservativeness(prior.score, x[:32], key=random.key(0))
    print(f"  asymmetry {float(found.asymmetry):.1g}")
    difference = np.asarray(
        prior.log_prob(x[:64]) - prior.log_likelihood(x[:64], flow=ns.ProbabilityFlow(32)).nats
    )
    print(
        f"  log p less that of the flow, 64 held-out digits: {difference.mean():+.1f} +- "
        f"{difference.std():.1f} nats"
    )
    cost_of_values(modules["energy"], modules["denoiser"], process, pictures[:1_000])
    print(level_normalizers(prior, random.key(seed), num_levels=150))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["mixture", "plane", "digits"])
    parser.add_argument("--num-steps", type=int, default=10_000, help="of the energy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    for part in args.parts:
        for seed in args.seeds:
            {"mixture": mixture, "plane": plane, "digits": digits}[part](args.num_steps, seed)


if __name__ == "__main__":
    main()
