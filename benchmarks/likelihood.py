# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The log density of a diffusion prior by the integral over noise levels and along the probability
flow, with fixed and with adaptive steps, against densities that are known: what each is off by and
what it costs. A table a target.

An error is the largest of 32 points in nats a dimension, where the trace is exact: at draws of the
density, and half-way between the nearest modes. Evaluations are those of the denoiser with its
trace for one point, each as dear as `1 + d` of the denoiser (`1 + m` with `m` probes); those of the
flow follow one another. The second table has random probes: the standard deviation of one estimate
in nats a dimension, and how far the mean over 32 points and many keys is from the exact one, in
standard errors.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.scipy.special import logsumexp

import numpyro_scores as ns
from benchmarks._timing import timed
from benchmarks.inverse_quality import COVARIANCE

PROCESS = ns.VarianceExploding(sigma_min=0.02, sigma_max=500.0)
NUM_POINTS = 32

RULES: dict[str, Any] = {
    f"noise path, {n} nodes": ns.NoisePathIntegral(n, ns.ExactTrace()) for n in (8, 16, 32, 64)
}
RULES |= {f"flow, {n} steps": ns.ProbabilityFlow(n, ns.ExactTrace()) for n in (16, 64, 256)}
RULES |= {
    f"flow, tolerance {tol:g}": ns.AdaptiveProbabilityFlow(tol, tol, trace=ns.ExactTrace())
    for tol in (1e-2, 1e-3, 1e-4, 1e-5)
}


class Target(NamedTuple):
    """
    - **dim** - of a point.
    - **denoiser** - exact.
    - **log_density** - of a point at a noise level.
    - **points** - by what they are, each of shape `(NUM_POINTS, dim)`.
    """

    dim: int
    denoiser: Callable
    log_density: Callable
    points: dict[str, np.ndarray]


def gaussian() -> Target:
    """Smooth pictures of 8 x 8 pixels."""
    variances, axes = np.linalg.eigh(COVARIANCE)

    def denoiser(x, sigma):
        return jnp.asarray(axes) @ (variances / (variances + sigma**2) * (axes.T @ x))

    def log_density(x, sigma):
        variance = variances + sigma**2
        return -0.5 * np.sum((x @ axes) ** 2 / variance + np.log(2 * np.pi * variance), axis=-1)

    noise = np.random.default_rng(0).normal(size=(NUM_POINTS, len(axes)))
    draws = noise * np.sqrt(variances + PROCESS.sigma_min**2) @ axes.T
    return Target(len(axes), denoiser, log_density, {"draws": draws})


def mixture(dim: int, variance: float) -> Target:
    """Five modes with means from `N(0, 16 I)`."""
    rng = np.random.default_rng(0)
    means = rng.normal(scale=4.0, size=(5, dim))

    def log_shares(x, sigma):
        squares = ((x[..., None, :] - means) ** 2).sum(axis=-1)
        return -squares / (2 * (variance + sigma**2))

    def denoiser(x, sigma):
        shrunk = variance / (variance + sigma**2) * (x - means)
        return jax.nn.softmax(log_shares(x, sigma)) @ (means + shrunk)

    def log_density(x, sigma):
        log_scale = np.log(2 * np.pi * (variance + sigma**2))
        return logsumexp(log_shares(x, sigma), axis=-1) - np.log(5) - dim / 2 * log_scale

    noise = rng.normal(size=(NUM_POINTS, dim)) * np.sqrt(variance + PROCESS.sigma_min**2)
    draws = means[rng.integers(5, size=NUM_POINTS)] + noise
    distances = np.linalg.norm(means[:, None] - means, axis=-1) + 1e9 * np.eye(5)
    i, j = np.unravel_index(np.argmin(distances), (5, 5))
    between = (means[i] + means[j]) / 2 + noise
    return Target(dim, denoiser, log_density, {"draws": draws, "between": between})


TARGETS = {
    "a Gaussian in 64 dimensions": gaussian,
    "five modes in 2 dimensions": lambda: mixture(2, 0.25),
    "five modes in 8 dimensions": lambda: mixture(8, 0.25),
    "five modes in 64 dimensions": lambda: mixture(64, 0.05),
}


def value(rule: Any, target: Target) -> Callable:
    def log_density(x, rule=rule):
        return rule(target.denoiser, x, jnp.asarray(PROCESS.sigma_min), PROCESS.sigma_max)

    return log_density


def num_evaluations(rule: Any, target: Target, points: np.ndarray) -> float:
    """Of the denoiser, for one point, on average."""
    calls: list[None] = []

    def counted(x, sigma):
        jax.debug.callback(lambda sigma: calls.append(None), sigma)
        return target.denoiser(x, sigma)

    found = jax.jit(value(rule, target._replace(denoiser=counted)))
    jax.block_until_ready([found(x) for x in points])
    jax.effects_barrier()
    return len(calls) / len(points)


def exact_traces(target: Target) -> None:
    print("| | " + " | ".join(f"error, {name}" for name in target.points), end="")
    print(" | evaluations | ms a point |\n|---" + "|---" * (len(target.points) + 2) + "|")
    draws = jnp.asarray(target.points["draws"])
    for name, rule in RULES.items():
        found = jax.jit(jax.vmap(value(rule, target)))
        errors = []
        for points in target.points.values():
            exact = target.log_density(np.asarray(points), PROCESS.sigma_min)
            errors.append(np.max(np.abs(found(jnp.asarray(points)) - exact)) / target.dim)
        seconds, _ = timed(found, draws)
        calls = num_evaluations(rule, target, target.points["draws"][:4])
        cells = " | ".join(f"{e:.1e}" for e in errors)
        print(f"| {name} | {cells} | {calls:.0f} | {1e3 * seconds / len(draws):.2f} |", flush=True)


def random_probes(target: Target, num_keys: int) -> None:
    print("\n| | sd of one | mean, s.e. |\n|---|---|---|")
    x = jnp.asarray(target.points["draws"])
    exact = target.log_density(np.asarray(x), PROCESS.sigma_min)
    keys = random.split(random.key(0), (num_keys, len(x)))
    for num_probes in (1, 8):
        for name in ("noise path, 64 nodes", "flow, 64 steps", "flow, tolerance 1e-05"):

            def found(key, x, rule=RULES[name], num_probes=num_probes):
                seed: Any = random.bits(key)
                probes = ns.HutchinsonTrace(num_probes, seed)
                return value(replace(rule, trace=probes), target)(x)

            each = jax.jit(jax.vmap(jax.vmap(found), (0, None)))
            errors = np.asarray(each(keys, x) - exact, float)
            z = errors.mean() / (errors.std() / np.sqrt(errors.size))
            name = f"{name}, {num_probes} probe{'s' * (num_probes > 1)}"
            print(f"| {name} | {errors.std() / target.dim:.1e} | {z:+.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-keys", type=int, default=200, help="of random probes")
    args = parser.parse_args()
    for name, make in TARGETS.items():
        print(f"\n### {name}\n")
        target = make()
        exact_traces(target)
        random_probes(target, args.num_keys)


if __name__ == "__main__":
    main()
