# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether ranks are uniform: the empirical distribution function within simultaneous bands."""

from typing import NamedTuple

import numpy as np
from jax import Array, random

# Levels of the statistic whose probability is computed; those in between are interpolated.
NUM_LEVELS = 64
# What a band holds, all of it at once.
BAND = 0.95


class RankTest(NamedTuple):
    """
    - **statistic** - least two-sided tail probability of the empirical distribution function, over
      all ranks, shape `event_shape`: small where the ranks are not uniform.
    - **p_value** - of the hypothesis that they are, shape `event_shape`.
    - **ecdf** - share of the ranks that are at most 0, 1, ..., shape `(num_ranks, *event_shape)`.
    - **lower**, **upper** - bands that hold the whole function with probability 0.95 if the ranks
      are uniform, shape `(num_ranks,)`.
    """

    statistic: np.ndarray
    p_value: np.ndarray
    ecdf: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def uniformity(ranks: np.ndarray, num_ranks: int) -> RankTest:
    r"""
    Test ranks :math:`0, \dots, R - 1` for uniformity (Säilynoja, Bürkner & Vehtari 2022, section
    2): the number of ranks up to `r` is binomial, :math:`B(N, (r + 1) / R)`; the statistic is its
    least two-sided tail probability over `r`. Its distribution is computed (:func:`tail_level`),
    not simulated: of the hundreds of quantities of a model the least p-value is to be told apart
    from the thousandth.

    :param ranks: shape `(N, *event_shape)`; each quantity is tested by itself.
    :param num_ranks: `R`.
    """
    size = len(ranks)
    tails = binomial_tails(size, num_ranks)
    flat = np.asarray(ranks).reshape(size, -1)
    histograms = np.stack([np.bincount(column, minlength=num_ranks) for column in flat.T])
    cumulated = np.cumsum(histograms, axis=1)
    statistic = np.min(tails[cumulated[:, :-1], np.arange(num_ranks - 1)], axis=-1)
    p_value = tail_levels(tails, statistic)
    inside = tails > _band_level(tails)
    shape = np.shape(ranks)[1:]
    return RankTest(
        statistic.reshape(shape),
        p_value.reshape(shape),
        (cumulated.T / size).reshape(num_ranks, *shape),
        np.append(np.argmax(inside, axis=0) / size, 1),
        np.append((size - np.argmax(inside[::-1], axis=0)) / size, 1),
    )


def binomial_tails(size: int, num_ranks: int) -> np.ndarray:
    """Two-sided tail probability of each cumulated count at each rank, `(size + 1, R - 1)`."""
    from scipy.stats import binom

    share = np.arange(1, num_ranks) / num_ranks
    counts = np.arange(size + 1)[:, None]
    below, above = binom.cdf(counts, size, share), binom.sf(counts - 1, size, share)
    return np.minimum(2 * np.minimum(below, above), 1)


def tail_level(tails: np.ndarray, statistic: float) -> float:
    r"""
    The probability that uniform ranks have a statistic as small as this one, exactly. The cumulated
    counts are a Markov chain: of the :math:`N - c` ranks above `r` the next is met by
    :math:`B(N - c, 1 / (R - 1 - r))`. What leaves the region of larger tails is added up rank by
    rank, so that small probabilities keep their digits.

    :param tails: what :func:`binomial_tails` returns.
    """
    from scipy.stats import binom

    size, num_ranks = len(tails) - 1, tails.shape[1] + 1
    # As many roundings as a tail probability may differ by.
    inside = tails > statistic * (1 + 1e-9)
    counts, weights, left = np.zeros(1, int), np.ones(1), 0.0
    for r in range(num_ranks - 1):
        allowed = np.flatnonzero(inside[:, r])
        rest = size - counts
        share = 1 / (num_ranks - r)
        below, above = weights @ _outside(binom, counts, rest, share, allowed)
        left += below + above
        if not len(allowed):
            return 1.0
        moves = binom.pmf(allowed[None] - counts[:, None], rest[:, None], share)
        counts, weights = allowed, weights @ moves
    return min(left, 1.0)


def _outside(binom, counts, rest, share, allowed):
    """The probability to end below and above what is allowed, from each count, shape `(k, 2)`."""
    if not len(allowed):
        return np.stack([np.ones(len(counts)), np.zeros(len(counts))], axis=1)
    below = binom.cdf(allowed[0] - 1 - counts, rest, share)
    return np.stack([below, binom.sf(allowed[-1] - counts, rest, share)], axis=1)


def tail_levels(tails: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """:func:`tail_level` of each; of more than 64 different ones interpolated in logarithms."""
    levels, inverse = np.unique(statistics, return_inverse=True)
    grid = levels
    if len(levels) > NUM_LEVELS:
        grid = np.geomspace(levels[0], levels[-1], NUM_LEVELS)
        grid[[0, -1]] = levels[[0, -1]]
    exact = np.array([tail_level(tails, level) for level in grid])
    p_value = np.exp(np.interp(np.log(levels), np.log(grid), np.log(exact)))
    return p_value[inverse].reshape(np.shape(statistics))


def _band_level(tails: np.ndarray) -> float:
    """The largest statistic whose probability is at most that of leaving a band."""
    low, high = -30.0, 0.0
    for _ in range(20):
        middle = (low + high) / 2
        if tail_level(tails, float(np.exp(middle))) > 1 - BAND:
            high = middle
        else:
            low = middle
    return float(np.exp(low))


def family_p_value(p_values: np.ndarray) -> float:
    r"""
    Of the hypothesis that all of `k` quantities are uniform, from the least of their p-values:
    :math:`1 - (1 - p)^k` (Šidák 1967), exact if they are independent, and more than
    :math:`k p - (k p)^2 / 2` however they depend on each other.
    """
    p_values = np.asarray(p_values)
    with np.errstate(divide="ignore"):
        return float(-np.expm1(p_values.size * np.log1p(-p_values.min())))


def ranks_among(draws: np.ndarray, truth: np.ndarray, key: Array) -> np.ndarray:
    """
    How many draws lie below the truth, ties broken by chance, shape `(N, *event_shape)`.

    :param draws: shape `(N, num_draws, *event_shape)`.
    :param truth: shape `(N, *event_shape)`.
    """
    truth = truth[:, None]
    ties = np.sum(draws == truth, axis=1)
    rng = np.random.default_rng(np.asarray(random.bits(key, (4,))))
    return np.sum(draws < truth, axis=1) + rng.integers(ties + 1)
