# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Disentanglement, completeness and informativeness, by what a regression needs of a code."""

import math
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from numpyro_scores.diagnostics.representation.inputs import (
    as_codes,
    as_factors,
    as_labels,
    generator_of,
    scaled,
)
from numpyro_scores.diagnostics.representation.learners import forest, fresh


class DCI(NamedTuple):
    """
    What :func:`dci` returns.

    - **value** - disentanglement: whether each code is of use for one factor only, from 0 to 1.
    - **completeness** - whether each factor needs one code only, from 0 to 1.
    - **informativeness** - how well the codes together predict a factor, on average over factors.
    - **importances** - of each code for each factor, shape `(num_codes, num_factors)`.
    """

    value: float
    completeness: float
    informativeness: float
    importances: np.ndarray


def dci(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    key: Array,
    categorical: bool = False,
    learner: Any = None,
) -> DCI:
    r"""
    Disentanglement, completeness and informativeness (Eastwood & Williams 2018, section 2). Of the
    importance :math:`R_{ij}` of code `i` of `D` for factor `j` of `K`,

    .. math:: \text{disentanglement} = \sum_i \rho_i \bigl(1 - H_K(R_{i \cdot})\bigr),
        \quad \rho_i = \frac{\sum_j R_{ij}}{\sum_{ij} R_{ij}}, \qquad
        \text{completeness} = \frac1K \sum_j \bigl(1 - H_D(R_{\cdot j})\bigr),

    with the entropy of shares to the base that makes that of equal ones 1. Informativeness is the
    score of the learner on the half of the samples that it is not trained on: the share of the
    variance that it explains, which is 1 minus the square of the paper's normalised error, or its
    accuracy.

    Codes are brought to unit variance. Rotated codes do not have a value of 0 but where every code
    is as important for all factors: random rotations of four uniform factors have 0.3 to 0.7.

    :param codes: shape `(n, num_codes)`.
    :param factors: shape `(n, num_factors)`, two or more; discrete if they are categorical.
    :param key: key of the halves and of the learners.
    :param categorical: whether factors are numbers of categories, which a classifier predicts.
    :param learner: an estimator of scikit-learn with `feature_importances_` or `coef_`, such as
        `Lasso(0.01)`; a random forest of 32 trees unless given. It is copied for each factor.
    :raises ValueError: for one factor, if there are more factors than samples, a factor has one
        value, or is continuous and categorical, or entries are not finite.
    :raises TypeError: if the learner has no importances.
    :raises ImportError: without scikit-learn.
    """
    name = "dci"
    codes = scaled(as_codes(codes))
    factors = (
        as_labels(name, factors, len(codes)) if categorical else as_factors(factors, len(codes))
    )
    if factors.shape[1] == 1:
        raise ValueError("dci compares factors and needs two or more, got 1.")
    learner = forest(name, categorical) if learner is None else learner
    rng = generator_of(name, key)
    first, second = np.array_split(rng.permutation(len(codes)), 2)
    importances, scores = [], []
    for factor in factors.T:
        trained = fresh(name, learner, rng).fit(codes[first], factor[first])
        importances.append(_importance(trained))
        scores.append(trained.score(codes[second], factor[second]))
    table = np.stack(importances, axis=1)
    disentanglement, completeness = _disentanglement(table), _completeness(table)
    return DCI(disentanglement, completeness, float(np.mean(scores)), table)


def _disentanglement(importances: np.ndarray) -> float:
    weights = importances.sum(axis=1) / max(importances.sum(), np.finfo(float).tiny)
    return float(weights @ (1 - _entropies(importances)))


def _completeness(importances: np.ndarray) -> float:
    # A single code is all that a factor can need.
    return float(np.mean(1 - _entropies(importances.T)))


def _entropies(rows: np.ndarray) -> np.ndarray:
    """Of the shares in each row, 1 if they are equal, or if there is nothing to share."""
    totals = rows.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, rows / np.where(totals > 0, totals, 1.0), 1 / rows.shape[1])
    logs = np.log(np.where(shares > 0, shares, 1.0))
    return -np.sum(shares * logs, axis=1) / math.log(max(rows.shape[1], 2))


def _importance(learner: Any) -> np.ndarray:
    for name in ("feature_importances_", "coef_"):
        if hasattr(learner, name):
            values = np.abs(np.asarray(getattr(learner, name), np.float64))
            # A linear classifier has a row of weights for each category.
            return values.reshape(-1, values.shape[-1]).mean(axis=0)
    raise TypeError(
        "learner must say what it needs of each code, by `feature_importances_` or `coef_`, as "
        f"scikit-learn's forests and linear models do, but {type(learner).__name__} does not."
    )
