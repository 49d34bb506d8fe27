# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The data of :mod:`benchmarks.deconvolution`, and their posterior by a grid."""

from typing import NamedTuple

import numpy as np

DIM, NOISE = 64, 0.05
RATE = 1e-4  # of the gamma densities of both precisions
PLACES = np.arange(-DIM // 2, DIM // 2)
WEIGHTS = np.exp(-0.5 * (PLACES / 10) ** 2)
KERNEL = WEIGHTS / WEIGHTS.sum()
MATRIX = np.stack([np.roll(KERNEL, i - DIM // 2) for i in range(DIM)])
PRECISION = 2 * np.eye(DIM) - np.eye(DIM, k=1) - np.eye(DIM, k=-1)
SIGNAL = np.sinc(5 * np.linspace(-1, 1, DIM))
DATA = MATRIX @ SIGNAL + NOISE * np.random.RandomState(0).standard_normal(DIM)

ROOT = np.linalg.inv(np.linalg.cholesky(PRECISION)).T
LEFT, SINGULAR, RIGHT = np.linalg.svd(MATRIX @ ROOT)
BASIS = ROOT @ RIGHT.T
ROTATED = LEFT.T @ DATA


class Exact(NamedTuple):
    """
    Moments of the posterior, by a grid of both precisions.

    - **mean**, **sd** - of `(log d, log l)`, shape `(2,)`.
    - **x_mean**, **x_sd** - of the signal, shape `(64,)`.
    - **log_evidence** - log density of the data.
    """

    mean: np.ndarray
    sd: np.ndarray
    x_mean: np.ndarray
    x_sd: np.ndarray
    log_evidence: float


def exact_posterior(num: int = 400) -> Exact:
    log_d, log_l = np.linspace(-1.0, 12.0, num), np.linspace(4.0, 7.5, num)
    grid = np.stack(np.meshgrid(log_d, log_l, indexing="ij"), axis=-1).reshape(-1, 2)
    d, precision = np.exp(grid).T[..., None]
    variance = SINGULAR**2 / d + 1 / precision
    log_likelihood = -0.5 * (np.log(2 * np.pi * variance) + ROTATED**2 / variance).sum(axis=1)
    log_prior = (np.log(RATE) - RATE * np.exp(grid) + grid).sum(axis=1)
    log_joint = log_likelihood + log_prior
    p = np.exp(log_joint - log_joint.max())
    cell = (log_d[1] - log_d[0]) * (log_l[1] - log_l[0])
    log_evidence = np.log(p.sum() * cell) + log_joint.max()
    p /= p.sum()
    mean = p @ grid
    # Of the coefficients: their conditional variance, and that of their conditional mean.
    w_variance = 1 / (d + precision * SINGULAR**2)
    w_mean = precision * SINGULAR * ROTATED * w_variance
    x = w_mean @ BASIS.T
    x_variance = p @ (w_variance @ (BASIS**2).T + x**2) - (p @ x) ** 2
    return Exact(mean, np.sqrt(p @ (grid - mean) ** 2), p @ x, np.sqrt(x_variance), log_evidence)
