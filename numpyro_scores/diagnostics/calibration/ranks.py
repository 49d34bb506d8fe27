# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether ranks are uniform: the empirical distribution function within simultaneous bands."""

from typing import NamedTuple

import numpy as np
from jax import Array, random

# Draws of uniform ranks that calibrate the bands and the p-values.
NUM_REFERENCES = 2_000


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


def uniformity(ranks: np.ndarray, num_ranks: int, key: Array) -> RankTest:
    r"""
    Test ranks :math:`0, \dots, R - 1` for uniformity (Säilynoja, Bürkner & Vehtari 2022, section
    2): the number of ranks up to `r` is binomial, :math:`B(N, (r + 1) / R)`; the statistic is its
    least two-sided tail probability over `r`, and its distribution is simulated.

    :param ranks: shape `(N, *event_shape)`; each quantity is tested by itself.
    :param num_ranks: `R`.
    :param key: key of the simulation.
    """
    import scipy.stats

    size = len(ranks)
    share = np.arange(1, num_ranks) / num_ranks
    counts = np.arange(size + 1)[:, None]
    below = scipy.stats.binom.cdf(counts, size, share)
    above = scipy.stats.binom.sf(counts - 1, size, share)
    # Tail probabilities of each count at each rank, shape (N + 1, R - 1).
    tails = np.minimum(2 * np.minimum(below, above), 1)

    def least_tail(cumulated):
        return np.min(tails[cumulated, np.arange(num_ranks - 1)], axis=-1)

    seed = np.asarray(random.bits(key, (4,)))
    rng = np.random.default_rng(seed)
    probabilities = np.full(num_ranks, 1 / num_ranks)
    references = least_tail(
        np.cumsum(rng.multinomial(size, probabilities, NUM_REFERENCES), axis=1)[:, :-1]
    )
    flat = np.asarray(ranks).reshape(size, -1)
    histograms = np.stack([np.bincount(column, minlength=num_ranks) for column in flat.T])
    cumulated = np.cumsum(histograms, axis=1)
    statistic = least_tail(cumulated[:, :-1])
    p_value = (1 + np.sum(references <= statistic[:, None], axis=1)) / (1 + NUM_REFERENCES)
    inside = tails > np.quantile(references, 0.05)
    shape = np.shape(ranks)[1:]
    return RankTest(
        statistic.reshape(shape),
        p_value.reshape(shape),
        (cumulated.T / size).reshape(num_ranks, *shape),
        np.append(np.argmax(inside, axis=0) / size, 1),
        np.append((size - np.argmax(inside[::-1], axis=0)) / size, 1),
    )


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
