# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Log evidences and their reported errors on problems whose evidence is known: of 100 data sets, drawn
from the model, how many are within three reported errors of the truth.

Counts: of one number, with two modes, there are three Poisson counts, one number with Student noise
and a factor; the truth is a sum over a grid. Laplace: of a value in four dimensions, with three
modes, six numbers have Laplace noise; given the variances of the noise (a mixture of exponentials)
all is Gaussian, and the truth is their mean over 100,000 draws. Mixture: eight numbers of 25 modes,
of which four functions are measured with Normal noise (:mod:`benchmarks.inverse`).
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from jax.scipy.special import logsumexp
from jax.tree_util import Partial

import numpyro_scores as ns
from benchmarks import inverse
from benchmarks._arguments import count

NUM_RUNS, NUM_PARTICLES = 100, 1_000
PROCESS = ns.VarianceExploding(sigma_min=0.05, sigma_max=50.0)
LINE = (jnp.array([[-1.5], [1.0]]), jnp.array([0.4, 0.6]), jnp.array(0.3))
SPACE = (
    jnp.array([[2.0, 0.0, 0.0, -1.0], [-2.0, 1.0, 0.0, 0.0], [0.0, -1.0, 2.0, 1.0]]),
    jnp.array([0.5, 0.3, 0.2]),
    jnp.array(0.6),
)
LAPLACE_SCALE, STUDENT_SCALE = 0.4, 0.3
NUM_SCALES = 100_000


def energy(means: Array, weights: Array, variance: Array, x: Array, sigma: Any) -> Array:
    """`-log p_sigma(x)` of a mixture of Gaussians of one variance."""
    total = variance + sigma**2
    logits = jnp.log(weights) - jnp.sum((x - means) ** 2, axis=1) / (2 * total)
    return len(x) / 2 * jnp.log(2 * np.pi * total) - logsumexp(logits)


def denoiser(means: Array, weights: Array, variance: Array, x: Array, sigma: Any) -> Array:
    return x - sigma**2 * jax.grad(energy, argnums=3)(means, weights, variance, x, sigma)


def prior_of(function: Callable, mixture: tuple, process: Any = PROCESS) -> ns.DiffusionPrior:
    return ns.DiffusionPrior(Partial(function, *mixture), process, mixture[0].shape[1])


def draw_mixture(mixture: tuple, rng: np.random.Generator) -> np.ndarray:
    """At the smallest noise level."""
    means, weights, variance = (np.asarray(a, np.float64) for a in mixture)
    sd = np.sqrt(variance + PROCESS.sigma_min**2)
    component = rng.choice(len(means), p=weights / weights.sum())
    return means[component] + sd * rng.normal(size=means.shape[1])


# Counts.


def counts(data: tuple, function: Callable = denoiser) -> None:
    count, value = data
    x = jnp.asarray(numpyro.sample("x", prior_of(function, LINE)))[0]
    numpyro.sample("count", dist.Poisson(jnp.exp(x)).expand([3]).to_event(1), obs=count)
    numpyro.sample("value", dist.StudentT(3.0, x, STUDENT_SCALE), obs=value)
    numpyro.factor("factor", -((x - 0.5) ** 4) / 10)


def counts_data(rng: np.random.Generator) -> tuple:
    x = draw_mixture(LINE, rng)[0]
    return rng.poisson(np.exp(x), size=3), x + STUDENT_SCALE * rng.standard_t(3)


def counts_evidence(data: tuple) -> float:
    count, value = data
    x = jnp.linspace(-6.0, 6.0, 4_001)
    log_p = -jax.vmap(lambda x: energy(*LINE, x[None], PROCESS.sigma_min))(x)
    log_p += dist.Poisson(jnp.exp(x)[:, None]).log_prob(count).sum(axis=1)
    log_p += dist.StudentT(3.0, x, STUDENT_SCALE).log_prob(value) - (x - 0.5) ** 4 / 10
    return float(logsumexp(log_p) + jnp.log(x[1] - x[0]))


# Laplace noise.

OPERATOR = np.random.default_rng(0).normal(size=(6, 4)) / 2


def laplace(data: Array, function: Callable = denoiser) -> None:
    x = jnp.asarray(numpyro.sample("x", prior_of(function, SPACE)))
    numpyro.sample("y", dist.Laplace(OPERATOR @ x, LAPLACE_SCALE).to_event(1), obs=data)


def laplace_data(rng: np.random.Generator) -> np.ndarray:
    return OPERATOR @ draw_mixture(SPACE, rng) + rng.laplace(scale=LAPLACE_SCALE, size=6)


@cache
def _given_variances() -> tuple[np.ndarray, np.ndarray]:
    """What makes residuals white given draws of the noise's variances, and log determinants."""
    variance = float(SPACE[2]) + PROCESS.sigma_min**2
    rng = np.random.default_rng(1)
    variances = rng.exponential(2 * LAPLACE_SCALE**2, size=(NUM_SCALES, 6))
    total = variance * OPERATOR @ OPERATOR.T + variances[:, :, None] * np.eye(6)
    root = np.linalg.cholesky(total)
    log_det = np.log(2 * np.pi * np.diagonal(root, axis1=1, axis2=2) ** 2).sum(axis=1)
    return np.linalg.inv(root), log_det


def laplace_evidence(data: np.ndarray) -> float:
    """:raises ValueError: if its standard error is above 0.05."""
    means, weights, _ = (np.asarray(a, np.float64) for a in SPACE)
    whiten, log_det = _given_variances()
    white = whiten @ (data - means @ OPERATOR.T).T
    p = np.exp(-((white**2).sum(axis=1) + log_det[:, None]) / 2) @ weights
    error = p.std() / p.mean() / NUM_SCALES**0.5
    if error > 0.05:
        raise ValueError(f"The reference of the evidence has an error of {error:.3f}, too large.")
    return float(np.log(p.mean()))


# Mixtures.


def mixture(data: inverse.Problem, function: Callable = denoiser) -> None:
    dim = data.operator.shape[1]
    process = inverse.prior_of(data.weights, dim).process
    parts = jnp.asarray(inverse.means_of(dim)), data.weights, jnp.ones(())
    x = jnp.asarray(numpyro.sample("x", prior_of(function, parts, process)))
    numpyro.sample("y", dist.Normal(data.operator @ x, data.noise).to_event(1), obs=data.y)


def mixture_data(rng: np.random.Generator) -> inverse.Problem:
    return inverse.make_problem(int(rng.integers(2**31)), 8, 4)


def mixture_evidence(data: inverse.Problem) -> float:
    weights, operator, noise, y = (np.asarray(a, np.float64) for a in data)
    total = (1 + inverse.SIGMA_MIN**2) * operator @ operator.T + noise**2 * np.eye(len(y))
    residuals = y - inverse.means_of(operator.shape[1]) @ operator.T
    log_p = -(residuals * np.linalg.solve(total, residuals.T).T).sum(axis=1) / 2
    log_p -= np.linalg.slogdet(2 * np.pi * total)[1] / 2
    return float(logsumexp(jnp.asarray(log_p + np.log(weights))))


class Set(NamedTuple):
    """
    - **model** - of data, and of the function that the prior is made of.
    - **data** - `data(rng)`, drawn from the model.
    - **evidence** - `evidence(data)`, its logarithm.
    """

    model: Callable
    data: Callable[[np.random.Generator], Any]
    evidence: Callable[[Any], float]


SAMPLERS: dict[str, Callable[[Callable], Any]] = {
    "TwistedDiffusionSampler": lambda model: ns.TwistedDiffusionSampler(
        model, NUM_PARTICLES, progress_bar=False
    ),
    "NoiseLevelSMC": lambda model: ns.NoiseLevelSMC(
        partial(model, function=energy), NUM_PARTICLES, progress_bar=False
    ),
    "TemperedSMC": lambda model: ns.TemperedSMC(
        partial(model, function=energy), NUM_PARTICLES, progress_bar=False
    ),
}
SETS = {
    "counts": Set(counts, counts_data, counts_evidence),
    "laplace": Set(laplace, laplace_data, laplace_evidence),
    "mixture": Set(mixture, mixture_data, mixture_evidence),
}


def run(name: str, sampler_name: str, num_runs: int) -> Iterator[str]:
    """What has been found after each 20 runs."""
    found, start = SETS[name], time.process_time()
    sampler = SAMPLERS[sampler_name](found.model)
    off, reported = [], []
    for i in range(num_runs):
        data = found.data(np.random.default_rng([i, 7]))
        exact = found.evidence(data)
        data = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are in the reported errors
            sampler.run(random.key(i), data)
        off.append(float(sampler.log_evidence) - exact)
        reported.append(float(sampler.log_evidence_error))
        if (i + 1) % 20 == 0 or i + 1 == num_runs:
            errors, is_finite = np.abs(off), np.isfinite(reported)
            num_within = np.sum((errors <= 3 * np.array(reported)) & is_finite)
            yield (
                f"{name:8} {sampler_name:24} {num_within} of {i + 1} "
                f"within 3 reported errors; off by {np.mean(off):+.3f}, s.d. {np.std(off):.3f}, "
                f"largest {errors.max():.2f}, reported {np.median(reported):.3f} (median), "
                f"{np.sum(~is_finite)} infinite; {time.process_time() - start:.0f} s of CPU"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--runs", type=count, default=NUM_RUNS)
    args = parser.parse_args()
    for name in args.sets:
        for sampler in args.samplers:
            for text in run(name, sampler, args.runs):
                print(text, flush=True)


if __name__ == "__main__":
    main()
