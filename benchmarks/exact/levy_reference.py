# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Draws of the posterior of a running sum of independent increments, in double precision on the host:
by forward filtering and backward sampling on a fine lattice where each number is measured alone,
and by Gibbs sampling of scale mixtures for any linear operator.
"""

from typing import NamedTuple

import numpy as np

from benchmarks.exact.levy_prior import LIMIT, Increments

NODES_A_NOISE, NEGLIGIBLE = 5, 1e-14


class Chains(NamedTuple):
    """
    - **draws** - shape `(chains, draws, length)`.
    - **r_hat** - the largest of all numbers, of split chains.
    """

    draws: np.ndarray
    r_hat: float


def lattice_posterior(
    law: Increments, observed: np.ndarray, y: np.ndarray, noise: float, num_draws: int, seed: int
) -> np.ndarray:
    """
    Draws of a signal of which some numbers are measured, each alone.

    :param observed: flags, shape `(length,)`.
    :param y: the data, shape `(length,)`; where nothing is measured it is not looked at.
    """
    spacing = noise / NODES_A_NOISE
    half = int(np.ceil(LIMIT / spacing))
    index = np.arange(-half, half + 1)
    lags = np.arange(-2 * half, 2 * half + 1)
    probability = np.asarray(law.on_lattice(lags, spacing), np.float64)
    kernel = probability[(index[:, None] - index) + 2 * half]
    likelihood = np.exp(-(((y[:, None] - spacing * index) / noise) ** 2) / 2)
    likelihood = np.where(observed[:, None], likelihood, 1.0)
    filtered = [probability[index + 2 * half] * likelihood[0]]
    for t in range(1, len(y)):
        message = (kernel @ filtered[-1]) * likelihood[t]
        filtered.append(message / message.sum())
    rng = np.random.default_rng(seed)
    node = rng.choice(len(index), size=num_draws, p=filtered[-1] / filtered[-1].sum())
    nodes = [node]
    for t in range(len(y) - 2, -1, -1):
        places = np.flatnonzero(filtered[t] > NEGLIGIBLE * filtered[t].max())
        cumulative = np.cumsum(filtered[t][places] * kernel[np.ix_(node, places)], axis=1)
        level = rng.uniform(size=num_draws) * cumulative[:, -1]
        node = places[np.minimum((cumulative < level[:, None]).sum(axis=1), len(places) - 1)]
        nodes.append(node)
    return spacing * index[np.stack(nodes[::-1], axis=1)]


def gibbs(
    law: Increments,
    operator: np.ndarray,
    y: np.ndarray,
    noise: float,
    *,
    num_chains: int = 8,
    num_warmup: int = 300,
    num_draws: int = 700,
    seed: int = 0,
) -> Chains:
    """
    Gibbs sampling of a signal measured by `operator`: given the variances of the increments all of
    them are jointly Gaussian; given the increments their variances are independent. Which
    increments are zero is drawn one by one, with the increments themselves summed over.
    """
    zero, gauss, laplace, cauchy, scale = (float(a) for a in law)
    if not np.isclose(max(gauss, cauchy, zero + laplace), 1):
        raise ValueError(f"gibbs is written for one density beside zero, got {law}.")
    rng = np.random.default_rng(seed)
    length = operator.shape[1]
    # Of increments, not of their sums.
    matrix = np.cumsum(operator[:, ::-1], axis=1)[:, ::-1]
    u = np.zeros((num_chains, length))
    moving = np.ones((num_chains, length), bool)
    draws = []
    for i in range(num_warmup + num_draws):
        variance = scale**2 * np.ones_like(u)
        if laplace:
            variance = _laplace_variances(rng, u, moving, scale)
        if cauchy:
            variance = scale**2 / rng.gamma(1.0, 2 / (1 + (u / scale) ** 2))
        if zero:
            moving = _which_move(rng, moving, variance, matrix, y, noise, laplace)
        u = _gaussian_increments(rng, np.where(moving, variance, 0.0), matrix, y, noise)
        if i >= num_warmup:
            draws.append(np.cumsum(u, axis=1))
    x = np.stack(draws, axis=1)
    return Chains(x, _r_hat(x))


def _laplace_variances(rng, u, moving, scale):
    """A Laplace density is a mixture of Gaussians whose variances are exponential."""
    prior = rng.exponential(2 * scale**2, size=u.shape)
    size = np.maximum(np.abs(u), 1e-8)
    return np.where(moving, 1 / rng.wald(1 / (scale * size), 1 / scale**2), prior)


def _gaussian_increments(rng, variance, matrix, y, noise):
    """Matheron's rule: a draw of the prior, moved by its own residual."""
    u = np.sqrt(variance) * rng.normal(size=variance.shape)
    residual = y + noise * rng.normal(size=(len(u), len(y))) - u @ matrix.T
    marginal = _marginal(variance, matrix, noise)
    return u + variance * (np.linalg.solve(marginal, residual[..., None])[..., 0] @ matrix)


def _marginal(variance, matrix, noise):
    """Covariance of the data given the variances of the increments."""
    return (matrix * variance[:, None]) @ matrix.T + noise**2 * np.eye(len(matrix))


def _which_move(rng, moving, variance, matrix, y, noise, probability):
    moving = moving.copy()
    inverse = np.linalg.inv(_marginal(np.where(moving, variance, 0.0), matrix, noise))
    for k in rng.permutation(matrix.shape[1]):
        column, w = matrix[:, k], variance[:, k]
        image = inverse @ column
        own, slope = image @ column, image @ y
        # Both without the increment, whether it is there now or not.
        rest = np.where(moving[:, k], 1 - w * own, 1.0)
        own, slope = own / rest, slope / rest
        odds = np.log(probability / (1 - probability)) - np.log1p(w * own) / 2
        odds += w * slope**2 / (1 + w * own) / 2
        chosen = rng.uniform(size=len(w)) < 1 / (1 + np.exp(-odds))
        change = chosen.astype(float) - moving[:, k]
        factor = change * w / (1 + change * w * (image @ column))
        inverse -= factor[:, None, None] * image[:, :, None] * image[:, None, :]
        moving[:, k] = chosen
    return moving


def _r_hat(x: np.ndarray) -> float:
    half = x.shape[1] // 2
    split = np.concatenate([x[:, :half], x[:, half : 2 * half]])
    within = split.var(axis=1, ddof=1).mean(axis=0)
    between = split.mean(axis=1).var(axis=0, ddof=1)
    return float(np.sqrt((within * (half - 1) / half + between) / within).max())
