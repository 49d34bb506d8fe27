# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
`AnnealedLangevin` where the data leave ever less noise: gradients a draw, and the standard
deviation of the draws over that of the posterior in each of its directions.

A Gaussian prior with standard deviations from 0.35 to 1.55 in four directions, its exact denoiser,
and two data with the given noise.
"""

import argparse
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random

import numpyro_scores as ns

D, SIGMA_MIN, NOISES = 4, 0.02, (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(D, D))
MEAN, COVARIANCE = RNG.normal(size=D), ROOT @ ROOT.T / D + 0.1 * np.eye(D)
OPERATOR = RNG.normal(size=(2, D))
Y = OPERATOR @ (MEAN + np.linalg.cholesky(COVARIANCE) @ RNG.normal(size=D))
EIGENVALUES, EIGENVECTORS = np.linalg.eigh(COVARIANCE)
KERNELS: dict[str, dict[str, Any]] = {
    "LeimkuhlerMatthews(), metric=None": {"integrator": ns.LeimkuhlerMatthews(), "metric": None},
    "LeimkuhlerMatthews()": {"integrator": ns.LeimkuhlerMatthews()},
    "metric=None": {"metric": None},
    "defaults": {},
}


def denoise(x, sigma):
    gain = EIGENVALUES / (EIGENVALUES + sigma**2)
    return MEAN + EIGENVECTORS @ (gain * (EIGENVECTORS.T @ (x - MEAN)))


PRIOR = ns.DiffusionPrior(denoise, ns.VarianceExploding(SIGMA_MIN, 20.0), D)


def model(y, noise):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(OPERATOR @ x, noise).to_event(1), obs=y)


def posterior(noise: float, denoised: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance at the smallest level, the likelihood of the denoised value or not."""
    precision = np.linalg.inv(COVARIANCE + SIGMA_MIN**2 * np.eye(D))
    a = OPERATOR @ (COVARIANCE @ precision if denoised else np.eye(D)) / noise
    covariance = np.linalg.inv(precision + a.T @ a)
    return MEAN + covariance @ a.T @ (Y - OPERATOR @ MEAN) / noise, covariance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--kernels", nargs="*", choices=KERNELS, default=list(KERNELS))
    args = parser.parse_args()
    for name in args.kernels:
        kernel = ns.AnnealedLangevin(model, **KERNELS[name])
        start = kernel.init(random.split(random.key(1), args.draws), 0, None, (Y, 1.0), {})
        sample = jax.jit(lambda state, noise, kernel=kernel: kernel.sample(state, (Y, noise), {}))
        for noise in NOISES:
            state = sample(start, noise)
            mean, covariance = posterior(noise)
            variances, axes = np.linalg.eigh(covariance)
            x = (np.asarray(state.z["x"], np.float64) - mean) @ axes / np.sqrt(variances)
            ratios = " ".join(f"{ratio:6.3f}" for ratio in x.std(axis=0))
            cost = float(np.mean(state.num_grad_evals))
            shift = np.abs(x.mean(axis=0)).max()
            print(
                f"{name:35} noise {noise:5}: {cost:8,.0f} gradients a draw, ratios {ratios}, "
                f"mean off by {shift:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
