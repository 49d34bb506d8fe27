# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Coverage of regions about random points: calibration of all quantities together."""

from typing import Any, NamedTuple

import numpy as np
from jax import Array, random

from numpyro_scores._validation import check_key
from numpyro_scores.diagnostics.calibration.coverage import checked
from numpyro_scores.diagnostics.calibration.ranks import ranks_among, uniformity


class Tarp(NamedTuple):
    """
    What :func:`tarp` returns, NumPy arrays.

    - **statistic**, **p_value** - of the hypothesis that the coverage is right, shape `()`.
    - **ranks** - how many draws lie closer to the reference than the truth, `(num_simulations,)`.
    - **levels** - credibility of a region, from 0 to 1, shape `(num_draws + 1,)`.
    - **coverage** - share of the regions of that credibility that hold the truth, as `levels`.
    - **lower**, **upper** - bands that hold all of it with probability 0.95, as `levels`.
    """

    statistic: np.ndarray
    p_value: np.ndarray
    ranks: np.ndarray
    levels: np.ndarray
    coverage: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def tarp(draws: Any, truth: Any, *, key: Array, references: Any = None) -> Tarp:
    """
    Tests of accuracy with random points (Lemos et al. 2023, algorithm 2): a ball about a point
    chosen at random that holds a share of the posterior draws holds the truth as often. Quantities
    are scaled to the range of the truths.

    References that know nothing of the data cannot see a posterior that is the prior; the paper's
    remedy is to let them depend on the data, with `references`.

    :param draws: independent posterior draws, shape `(num_simulations, num_draws, *event_shape)`.
    :param truth: what the data of each simulation were made from, `(num_simulations,
        *event_shape)`.
    :param key: key of the references and ties.
    :param references: the points, shape of `truth`; uniform over the range of the truths unless
        given.
    :raises ValueError: if the shapes do not fit, there are fewer than 10 simulations, or a value is
        not finite.
    """
    check_key("tarp", key)
    draws, truth = checked(draws, truth)
    key_references, key_ties = random.split(key)
    low, high = truth.min(axis=0), truth.max(axis=0)
    scale = np.where(high > low, high - low, 1)
    if references is None:
        references = low + scale * np.asarray(random.uniform(key_references, truth.shape))
    _, references = checked(draws, references)

    def distances(points):
        shifted = (points - references[:, None]) / scale
        return np.sum(shifted.reshape(*points.shape[:2], -1) ** 2, axis=-1)

    ranks = ranks_among(distances(draws), distances(truth[:, None])[:, 0], key_ties)
    num_ranks = draws.shape[1] + 1
    test = uniformity(ranks, num_ranks)
    levels = np.arange(1, num_ranks + 1) / num_ranks
    return Tarp(test.statistic, test.p_value, ranks, levels, test.ecdf, test.lower, test.upper)
