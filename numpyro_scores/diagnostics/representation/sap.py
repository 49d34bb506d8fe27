# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How much better the best single code predicts a factor than the second best."""

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
from numpyro_scores.diagnostics.representation.learners import balanced_accuracy, thresholds


class SAPScore(NamedTuple):
    """
    What :func:`sap_score` returns.

    - **value** - the mean over factors of the gap.
    - **of_factors** - the gap of each factor, shape `(num_factors,)`.
    - **scores** - how well each code by itself predicts each factor, shape
      `(num_codes, num_factors)`.
    """

    value: float
    of_factors: np.ndarray
    scores: np.ndarray


def sap_score(
    codes: ArrayLike, factors: ArrayLike, *, categorical: bool = False, key: Array | None = None
) -> SAPScore:
    r"""
    The gap of separated attribute predictability (Kumar, Sattigeri & Balakrishnan 2018, section 3):
    the mean over factors of the difference of the two largest scores of a code. The score of code
    `i` for factor `j` is the share of its variance that a line explains,

    .. math:: S_{ij} = \frac{\operatorname{cov}(z_i, v_j)^2}{\operatorname{var}(z_i)
        \operatorname{var}(v_j)},

    or, where the values of factors are `categorical` and have no order, the balanced accuracy of
    thresholds on the code, chosen on one half of the samples and asked on the other; guessing has
    one over the number of values, which a perfect code's gap then lacks to 1. A constant code has
    score 0, and so has the second of a single code.

    :param codes: shape `(n, num_codes)`.
    :param factors: shape `(n, num_factors)`; discrete if they are categorical.
    :param categorical: whether factors are numbers of categories.
    :param key: of the halves, needed if they are.
    :raises ValueError: if there are more factors than samples, a factor has one value, or is
        continuous and categorical, or entries are not finite.
    :raises ImportError: for categorical factors without scikit-learn.
    """
    codes = scaled(as_codes(codes))
    if categorical:
        scores = _accuracies(codes, as_labels("sap_score", factors, len(codes)), key)
    else:
        scores = (codes.T @ scaled(as_factors(factors, len(codes))) / len(codes)) ** 2
    ordered = np.sort(np.vstack([scores, np.zeros_like(scores[:1])]), axis=0)
    gaps = ordered[-1] - ordered[-2]
    return SAPScore(float(np.mean(gaps)), gaps, scores)


def _accuracies(codes: np.ndarray, labels: np.ndarray, key: Any) -> np.ndarray:
    name = "sap_score"
    order = generator_of(name, key).permutation(len(codes))
    first, second = np.array_split(order, 2)
    scores = np.zeros((codes.shape[1], labels.shape[1]))
    for i, j in np.ndindex(*scores.shape):
        z, v = codes[:, i : i + 1], labels[:, j]
        if np.any(z):
            classifier = thresholds(name, int(v.max()) + 1).fit(z[first], v[first])
            scores[i, j] = balanced_accuracy(classifier.predict(z[second]), v[second])
    return scores
