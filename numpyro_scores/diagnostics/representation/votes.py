# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Batches of samples that share the value of one factor."""

import math
from typing import NamedTuple

import numpy as np


class SharedFactorScore(NamedTuple):
    """
    What :func:`beta_vae_score` and :func:`factor_vae_score` return.

    - **value** - share of the held-out batches whose fixed factor is told.
    - **standard_error** - of the value, by the number of those batches.
    - **chance** - the value of a code that knows nothing, one over the number of factors.
    """

    value: float
    standard_error: float
    chance: float


class Partners:
    """Samples with the value that one factor has in a given sample."""

    def __init__(self, labels: np.ndarray):
        self._labels = labels
        self._order = np.argsort(labels, kind="stable")
        self._counts = np.bincount(labels)
        self._starts = np.cumsum(self._counts) - self._counts

    def draw(self, rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
        """Of each sample one that shares the value, any of them alike, itself among them."""
        values = self._labels[samples]
        ranks = (rng.random(np.shape(samples)) * self._counts[values]).astype(np.int64)
        return self._order[self._starts[values] + ranks]


def score(is_told: np.ndarray, num_factors: int) -> SharedFactorScore:
    value = float(np.mean(is_told))
    return SharedFactorScore(value, math.sqrt(value * (1 - value) / len(is_told)), 1 / num_factors)
