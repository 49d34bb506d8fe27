# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How right an energy of every noise level is that dual score matching has learned, where the truth is
known, and beside a denoiser that had as much time.

`mixture`: five modes in 8 dimensions, whose density is known: error of the value and of the score,
the weights of the modes, the cost of values. `plane`: two moons, and the potential of Mueller and
Brown: do draws by the reverse process and Langevin draws at the smallest level agree? `digits`:
denoising of held-out digits, log Z of the levels, cost of values. `levels`: log Z of the energy of
`examples/digits_deblurring.py`, and what its particles look like.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import random

import numpyro_scores as ns
from benchmarks._digit_energy import digit_normalizers, digit_prior
from benchmarks._timing import timed
from numpyro_scores.diagnostics import level_normalizers

# Points of a batch, with a pair of noises each. In the time of such a step a denoiser makes one of
# 256 points, or two of 128.
PAIRS = 64
# Of digits: learning rate and weight decay. An energy makes half of the steps, longer ones.
RECIPES = {"energy": (6e-3, 0.15), "denoiser": (2e-3, 0.3)}


def trained(network: Any, objective: Any, x: np.ndarray, num_steps: int, seed: int, **options: Any):
    """The module, and the seconds of CPU of its steps."""
    start = time.process_time()
    schedule = optax.cosine_decay_schedule(2e-3, num_steps)
    options = {"optimizer": optax.adam(schedule), "batch_size": 256} | options
    key = random.key(seed)
    fitted = ns.fit(
        network, objective, x, key=key, num_steps=num_steps, progress_bar=False, **options
    )
    return fitted.module, time.process_time() - start


def cost_of_values(energy: Any, denoiser: Any, process: Any, x: np.ndarray) -> None:
    """Of an energy, and of a denoiser by the noise path, in one run."""
    seconds = []
    for function in (energy, denoiser):
        prior = ns.DiffusionPrior(function, process, x.shape[1:])
        log_prob = jax.jit(prior.log_prob)
        timed(log_prob, x)
        seconds.append(timed(log_prob, x)[0])
    print(
        f"  {len(x)} values: energy {seconds[0]:.4f} s, denoiser by the noise path "
        f"{seconds[1]:.2f} s, {seconds[1] / seconds[0]:.0f} times as long"
    )


# Digits.


def denoising_error(denoise: Callable, x: np.ndarray, sigma: float) -> float:
    """Root mean square, with the same noise for all."""
    noise = np.random.default_rng(0).normal(size=(8, *x.shape)).astype(np.float32)
    y = (x + sigma * noise).reshape(-1, *x.shape[1:])
    found = np.asarray(jax.jit(lambda y: denoise(y, sigma))(y)).reshape(noise.shape)
    return float(np.sqrt(np.mean((found - x) ** 2)))


def digits_data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures to train on and held out ones, both about the mean of the first, and that mean."""
    from examples.digits_deblurring import load_pictures

    pictures, held_out = load_pictures(seed)
    mean = pictures.mean(axis=0)
    return pictures - mean, held_out - mean, mean


DIGITS = ns.VarianceExploding(sigma_min=0.08, sigma_max=10.0)


def hidden_kernels(parameters: Any) -> Any:
    """
    Which parameters weight decay is good for. Of the biases and of the last layer it makes the
    slope in the noise too small for all points alike, which adds up to nats of log Z.
    """

    def is_hidden(path: tuple, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path)
        return leaf.ndim >= 2 and ("blocks" in name or "linear_out" not in name)

    return jax.tree_util.tree_map_with_path(is_hidden, parameters)


def trained_on_digits(
    kind: str, pictures: np.ndarray, num_steps: int, seed: int
) -> tuple[Any, float]:
    """An energy, or a denoiser of the same network, and the seconds of its steps."""
    network, objective = {
        # One noise a point: with so few pictures more of them in a batch do more than pairs.
        "energy": (
            ns.nn.MLPNoiseEnergy,
            partial(ns.objectives.DualScoreMatching, antithetic=False),
        ),
        "denoiser": (ns.nn.MLPDenoiser, ns.objectives.DenoisingScoreMatching),
    }[kind]
    options = {"rngs": nnx.Rngs(seed), "hidden_features": 128, "num_layers": 3}
    options["sigma_data"] = float(pictures.std())
    rate, weight_decay = RECIPES[kind]
    schedule: Any = optax.cosine_decay_schedule(rate, num_steps)
    mask = None
    if kind == "energy":  # its first steps are steep
        schedule = optax.warmup_cosine_decay_schedule(0, rate, num_steps // 20, num_steps)
        mask = hidden_kernels
    optimizer = optax.adamw(schedule, weight_decay=weight_decay, mask=mask)
    return trained(
        network((8, 8), **options),
        objective(DIGITS),
        pictures,
        num_steps,
        seed,
        optimizer=optimizer,
        batch_size=2 * PAIRS,
        ema_decay=0.9995,
    )


def digits(num_steps: int, seed: int) -> None:
    process = DIGITS
    pictures, held_out, _ = digits_data(seed)
    modules = {}
    for name, steps in {"energy": num_steps, "denoiser": 2 * num_steps}.items():
        modules[name], seconds = trained_on_digits(name, pictures, steps, seed)
        prior = ns.DiffusionPrior(modules[name], process, (8, 8))
        errors = [denoising_error(prior.denoise, held_out, sigma) for sigma in (0.1, 0.3, 1.0)]
        words = " / ".join(f"{error:.4f}" for error in errors)
        print(
            f"digits, {name}, {steps} steps, {seconds:.0f} s: error of held-out digits at noise "
            f"0.1 / 0.3 / 1: {words}"
        )
    prior = ns.DiffusionPrior(modules["energy"], process, (8, 8))
    x = held_out + process.sigma_min * np.random.default_rng(1).normal(size=held_out.shape)
    x = jnp.asarray(x, jnp.float32)
    found = ns.diagnostics.conservativeness(prior.score, x[:32], key=random.key(0))
    print(f"  asymmetry {float(found.asymmetry):.1g}")
    difference = np.asarray(
        prior.log_prob(x[:64]) - prior.log_likelihood(x[:64], flow=ns.ProbabilityFlow(32)).nats
    )
    print(
        f"  log p less that of the flow, 64 held-out digits: {difference.mean():+.1f} +- "
        f"{difference.std():.1f} nats"
    )
    cost_of_values(modules["energy"], modules["denoiser"], process, pictures[:200])
    print(level_normalizers(prior, random.key(seed), num_particles=64))


def levels() -> None:
    """
    log Z of the energy of the demo at every level, its denoising error, and whether the particles
    of its smallest level are digits: how far each is from the nearest picture of training.
    """
    found, prior = digit_normalizers(), digit_prior()
    print(found)
    pictures, held_out, mean = digits_data(0)
    errors = [denoising_error(prior.denoise, held_out + mean, sigma) for sigma in (0.1, 0.3, 1.0)]
    print(f"  error of held-out digits at noise 0.1 / 0.3 / 1: {np.round(errors, 4)}")
    noise = np.random.default_rng(0).normal(size=held_out.shape)
    particles = found.particles.reshape(-1, 8, 8) - mean
    for name, x in {
        "particles": particles,
        "held-out digits with noise": held_out + DIGITS.sigma_min * noise,
    }.items():
        squares = np.mean((x[:, None] - pictures[None]) ** 2, axis=(2, 3))
        distance = np.median(np.sqrt(squares.min(axis=1)))
        beyond = np.mean(np.abs(x + mean) > 1.3)
        print(
            f"  {name}: root mean square distance from the nearest picture {distance:.2f} "
            f"(median), {beyond:.2%} of the pixels beyond 1.3"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["mixture", "plane", "digits"])
    parser.add_argument("--num-steps", type=int, default=10_000, help="of the energy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--further", action="store_true", help="of the mixture: cost of values, log Z by particles"
    )
    args = parser.parse_args()
    from benchmarks.energy_mixture import mixture
    from benchmarks.energy_plane import plane

    if "levels" in args.parts:
        levels()
    if "mixture" in args.parts:
        mixture(args.num_steps, args.seeds, args.further)
    parts = {"plane": plane, "digits": digits}
    for seed in args.seeds:
        for part in args.parts:
            if part in parts:
                parts[part](args.num_steps, seed)


if __name__ == "__main__":
    main()
