# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Which sampler may be trusted with an unknown noise scale: a smooth curve of 32 points, 8 of which
are measured with noise, under a Gaussian prior with its exact denoiser; against quadrature.

    python -m benchmarks.noise_scale [--samplers DAPS MomentMatching]

Or, of a funnel of four numbers, how many of many runs of `TemperedSMC` have quantiles and evidence
within their errors:

    python -m benchmarks.noise_scale --funnel 100 [--particles 2000]
"""

import argparse
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from numpyro.infer import MCMC
from scipy import stats

import numpyro_scores as ns

NUM_POINTS, NUM_DRAWS, TRUE_NOISE = 32, 2_000, 0.3
POINTS = np.linspace(0, 1, NUM_POINTS)
COVARIANCE = np.exp(-((POINTS[:, None] - POINTS) ** 2) / (2 * 0.15**2)) + 1e-4 * np.eye(NUM_POINTS)
SEEN = np.arange(2, NUM_POINTS, 4)
VALUES, VECTORS = np.linalg.eigh(COVARIANCE)
RNG = np.random.default_rng(1)
Y = (np.linalg.cholesky(COVARIANCE) @ RNG.normal(size=NUM_POINTS))[SEEN]
Y = Y + TRUE_NOISE * RNG.normal(size=len(SEEN))


def denoise(x, sigma):
    return VECTORS @ (VALUES / (VALUES + sigma**2) * (VECTORS.T @ x))


PRIOR = ns.DiffusionPrior(denoise, ns.VarianceExploding(0.02, 10.0), NUM_POINTS)


def model(y):
    x: Any = numpyro.sample("x", PRIOR)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x[SEEN], noise).to_event(1), obs=y)


def exact():
    """Mean and standard deviation of the noise, and of the curve, by quadrature over the noise."""
    grid = np.linspace(0.005, 4, 2_000)
    log_density, means, squares = stats.halfnorm.logpdf(grid), [], []
    cross = COVARIANCE[:, SEEN]
    for i, noise in enumerate(grid):
        seen = COVARIANCE[np.ix_(SEEN, SEEN)] + noise**2 * np.eye(len(SEEN))
        log_density[i] += stats.multivariate_normal(np.zeros(len(SEEN)), seen).logpdf(Y)
        gain = np.linalg.solve(seen, cross.T).T
        means.append(gain @ Y)
        squares.append(means[-1] ** 2 + np.diag(COVARIANCE - gain @ cross.T))
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    noise, mean = weights @ grid, weights @ np.array(means)
    spread = np.sqrt(weights @ np.array(squares) - mean**2)
    return noise, np.sqrt(weights @ (grid - noise) ** 2), mean, spread


def by_kernel(make, num_warmup=0, num_samples=1):
    def draws(key):
        mcmc = MCMC(
            make(model),
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=NUM_DRAWS // num_samples,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key, jnp.asarray(Y))
        return mcmc.get_samples()

    return draws


def by_particles(make):
    def draws(key):
        smc = make(model, NUM_DRAWS, progress_bar=False)
        smc.run(key, jnp.asarray(Y))
        return smc.get_samples()

    return draws


SAMPLERS = {
    "TemperedSMC": by_particles(ns.TemperedSMC),
    "TwistedDiffusionSampler": by_particles(ns.TwistedDiffusionSampler),
    "AnnealedLangevin": by_kernel(ns.AnnealedLangevin),
    "SplitGibbs(coupling=0.1)": by_kernel(lambda m: ns.SplitGibbs(m, coupling=0.1), 500, 50),
    "MomentMatching": by_kernel(ns.MomentMatching),
    "DiffusionPosteriorSampling": by_kernel(ns.DiffusionPosteriorSampling),
    "DAPS": by_kernel(ns.DAPS),
}


FUNNEL_Y, FUNNEL_LEVELS = np.array([0.5, -0.3, 1.0, 0.2]), np.array([0.05, 0.25, 0.5, 0.75, 0.95])


def funnel(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([4]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(0.5))
    numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)


def exact_funnel():
    """Quantiles of the noise, and the log evidence, by quadrature."""
    noise = np.linspace(1e-5, 4, 40_001)
    density = stats.halfnorm(scale=0.5).pdf(noise)
    density *= stats.norm(0, np.sqrt(1 + noise**2)[:, None]).pdf(FUNNEL_Y).prod(axis=1)
    cumulated = np.cumsum(density) / density.sum()
    return np.interp(FUNNEL_LEVELS, cumulated, noise), np.log(np.trapezoid(density, noise))


def run_funnel(num_runs: int, num_particles: int) -> None:
    """
    Print in how many runs a quantile is within two standard errors, of one run, which is the
    standard deviation over the runs; by how many of their own means are off; and in how many the
    evidence is within three reported errors.
    """

    def one(key):
        smc = ns.TemperedSMC(funnel, num_particles, progress_bar=False)
        smc.run(key, jnp.asarray(FUNNEL_Y, jnp.float32))
        quantiles = jnp.quantile(smc.get_samples()["noise"], FUNNEL_LEVELS)
        return quantiles, smc.log_evidence, smc.log_evidence_error

    start = time.perf_counter()
    keys = random.split(random.key(0), num_runs)
    found = jax.jit(partial(lax.map, one))(keys)  # one after the other: all repeat as they need
    quantiles, log_evidence, error = (np.asarray(values, float) for values in found)
    exact_quantiles, exact_evidence = exact_funnel()
    spread = quantiles.std(axis=0, ddof=1)
    off = (quantiles.mean(axis=0) - exact_quantiles) / (spread / np.sqrt(num_runs))
    within = np.abs(quantiles - exact_quantiles) < 2 * spread
    right = np.sum(np.abs(log_evidence - exact_evidence) < 3 * error)
    levels = ", ".join(f"{level:.0%}" for level in FUNNEL_LEVELS)
    print(f"funnel, {num_runs} runs of {num_particles} particles; quantiles {levels}")
    print(f"exact               {np.round(exact_quantiles, 3)}, log evidence {exact_evidence:.3f}")
    print(f"mean of runs        {np.round(quantiles.mean(axis=0), 3)}, off by")
    print(f"  standard errors   {np.round(off, 1)}")
    print(f"quantile within two standard errors of a run: {within.sum(axis=0)} of {num_runs}")
    print(
        f"log evidence within three reported errors: {right} of {num_runs}, off by "
        f"{np.mean(log_evidence) - exact_evidence:.3f} +- {log_evidence.std():.3f}, reported "
        f"{error.mean():.3f}, {time.perf_counter() - start:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--funnel", type=int, metavar="RUNS", help="of TemperedSMC, and no more")
    parser.add_argument("--particles", type=int, default=NUM_DRAWS, help="of each of these runs")
    parser.add_argument("--samplers", nargs="*", choices=list(SAMPLERS), default=list(SAMPLERS))
    arguments = parser.parse_args()
    if arguments.funnel:
        return run_funnel(arguments.funnel, arguments.particles)
    noise, spread, mean, curve = exact()
    print(f"{'exact':28} noise {noise:.3f} +- {spread:.3f}")
    for name in arguments.samplers:
        start = time.perf_counter()
        found = SAMPLERS[name](random.key(0))
        scale, x = np.asarray(found["noise"]), np.asarray(found["x"])
        error = np.sqrt(np.mean(((x.mean(axis=0) - mean) / curve) ** 2))
        ratio = np.mean(x.std(axis=0) / curve)
        print(
            f"{name:28} noise {scale.mean():.3f} +- {scale.std():.3f}, curve: error of the mean "
            f"{error:.2f} sd, sd {ratio:.2f} of exact, {time.perf_counter() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
