# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Every posterior sampler against exact posteriors: pictures of 8 x 8 pixels, half of them missing,
under a smooth Gaussian prior; and a prior with three modes, two of which fit the data.

Printed are, over all entries, the root mean square error of the posterior mean in posterior
standard deviations, the mean ratio of standard deviations, the mass that the exact posterior has in
the 90% intervals of the draws; the total variation of the weights of the modes; and the log
evidence with its standard error beside the exact one.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from jax.scipy.stats import norm

import numpyro_scores as ns
from benchmarks.posteriors import SAMPLERS, Draw, Posterior

SIDE, NOISE = 8, 0.2
SAMPLER = ns.Multistep(num_steps=24, order=3)
PROCESS = ns.VarianceExploding(sigma_min=0.02, sigma_max=100.0)
MODES = jnp.array([[4.0, 4.0], [4.0, -4.0], [-4.0, 0.0]]).repeat(4, axis=1)
WEIGHTS = jnp.array([0.5, 0.3, 0.2])


def smooth_covariance() -> np.ndarray:
    places = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    squared = ((places[:, None] - places) ** 2).sum(axis=-1)
    return np.exp(-squared / 8.0) + 0.01 * np.eye(SIDE**2)


COVARIANCE = smooth_covariance()
VALUES, VECTORS = (jnp.asarray(a, jnp.float32) for a in np.linalg.eigh(COVARIANCE))


def denoise_picture(x, sigma):
    return VECTORS @ (VALUES / (VALUES + sigma**2) * (VECTORS.T @ x))


def denoise_modes(x, sigma):
    variance = 1 + sigma**2
    logits = jnp.log(WEIGHTS) + (MODES @ x - jnp.sum(MODES**2, axis=1) / 2) / variance
    mean = jax.nn.softmax(logits) @ MODES
    return mean + (x - mean) / variance


# One probe does: the Jacobian is the same at all points, and the error of its trace with it.
LOG_DENSITY = ns.NoisePathIntegral(trace=ns.HutchinsonTrace(num_probes=1))
PICTURE = ns.DiffusionPrior(
    denoise_picture, PROCESS, SIDE**2, log_density=LOG_DENSITY, sampler=SAMPLER
)
THREE = ns.DiffusionPrior(denoise_modes, PROCESS, 8, sampler=SAMPLER)


def picture(observed, y):
    x = jnp.asarray(numpyro.sample("x", PICTURE))
    numpyro.sample("y", dist.Normal(x[observed], NOISE).to_event(1), obs=y)


def three_modes(y):
    x = jnp.asarray(numpyro.sample("x", THREE))
    numpyro.sample("y", dist.Normal(jnp.mean(x[:4]), 0.3), obs=y)


def on_pictures(draw: Draw, seeds: Sequence[int]) -> None:
    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        observed = np.sort(rng.permutation(SIDE**2)[: SIDE**2 // 2])
        truth = np.linalg.cholesky(COVARIANCE) @ rng.normal(size=SIDE**2)
        y = truth[observed] + NOISE * rng.normal(size=len(observed))
        marginal = COVARIANCE[np.ix_(observed, observed)] + NOISE**2 * np.eye(len(observed))
        gain = np.linalg.solve(marginal, COVARIANCE[observed]).T
        mean = gain @ y
        sd = np.sqrt(np.diag(COVARIANCE - gain @ COVARIANCE[observed]))
        evidence = dist.MultivariateNormal(np.zeros(len(y)), marginal).log_prob(y)
        found = draw(random.key(seed), jnp.asarray(observed), jnp.asarray(y, jnp.float32))
        x = np.asarray(found.x)
        low, high = np.quantile(x, [0.05, 0.95], axis=0)
        mass = norm.cdf(high, mean, sd) - norm.cdf(low, mean, sd)
        error = np.sqrt(np.mean(((x.mean(axis=0) - mean) / sd) ** 2))
        ratio = np.mean(x.std(axis=0) / sd)
        rows.append((error, ratio, mass.mean(), *error_and_cost(found, evidence)))
    error, ratio, coverage, *rest = np.mean(np.asarray(rows), axis=0)
    print(
        f"  half of the pixels: error of the mean {error:.3f} sd, ratio of sds {ratio:.3f}, "
        f"coverage {coverage:.3f}, {described(*rest)}",
        flush=True,
    )


def on_modes(draw: Draw, seeds: Sequence[int], y: float) -> None:
    means = jnp.mean(MODES[:, :4], axis=1)
    logits = jnp.log(WEIGHTS) + dist.Normal(means, np.sqrt(1 / 4 + 0.3**2)).log_prob(y)
    exact, evidence = jax.nn.softmax(logits), jax.nn.logsumexp(logits)
    rows = []
    for seed in seeds:
        found = draw(random.key(seed), jnp.asarray(y))
        logits = found.x @ MODES.T - jnp.sum(MODES**2, axis=1) / 2
        share = jnp.bincount(jnp.argmax(logits, axis=1), length=3) / len(found.x)
        variation = float(jnp.sum(jnp.abs(share - exact)) / 2)
        rows.append((variation, *error_and_cost(found, evidence)))
    variation, *rest = np.mean(np.asarray(rows), axis=0)
    print(
        f"  three modes, datum {y}: total variation of their weights {variation:.3f}, "
        f"{described(*rest)}",
        flush=True,
    )


def error_and_cost(found: Posterior, evidence: Any) -> tuple[float, float]:
    """The error of the log evidence in standard errors, and the evaluations of a draw in all."""
    estimate, error = found.log_evidence
    return (estimate - float(evidence)) / error, found.num_evals + found.num_prior_evals


def described(z: float, cost: float) -> str:
    evidence = "" if np.isnan(z) else f"log evidence off by {z:.1f} errors, "
    return f"{evidence}{cost:.0f} evaluations a draw"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=list(SAMPLERS)[:-2])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    for name in args.samplers:
        print(name)
        on_pictures(SAMPLERS[name](picture, PICTURE), range(args.seeds))
        modes = SAMPLERS[name](three_modes, THREE)
        on_modes(modes, range(args.seeds), y=3.0)
        on_modes(modes, range(args.seeds), y=0.9)  # 5 standard deviations from where two modes are


if __name__ == "__main__":
    main()
