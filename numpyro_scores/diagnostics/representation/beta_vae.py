# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The measure of the beta-VAE: a linear classifier tells which factor two samples share."""

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics.representation.inputs import (
    as_codes,
    as_labels,
    generator_of,
    scaled,
)
from numpyro_scores.diagnostics.representation.learners import linear_classifier
from numpyro_scores.diagnostics.representation.votes import Partners, SharedFactorScore, score


def beta_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    key: Array,
    num_batches: int = 1_000,
    batch_size: int = 64,
) -> SharedFactorScore:
    r"""
    The accuracy of a linear classifier (Higgins et al. 2017, section 3) that is told

    .. math:: \frac1L \sum_{l=1}^L |z(x_{1,l}) - z(x_{2,l})|

    of `L` pairs of samples, of which each agrees in factor `y`, and says `y`: logistic regression,
    of codes of unit variance, trained on `num_batches` batches and asked of as many others. The
    pairs are among the given samples, whose factors should be independent.

    Most rotations of a perfect code have a score of 1 too: the classifier combines codes. See
    :func:`factor_vae_score`.

    :param codes: shape `(n, num_codes)`.
    :param factors: discrete, shape `(n, num_factors)`.
    :param key: key of the batches.
    :param num_batches: number of batches to learn from, and to be asked of.
    :param batch_size: `L`, pairs in a batch.
    :raises ValueError: if there are more factors than samples, a factor has one value or is
        continuous, or entries are not finite.
    :raises ImportError: without scikit-learn.
    """
    name = "beta_vae_score"
    check_count("num_batches", num_batches)
    check_count("batch_size", batch_size)
    codes = scaled(as_codes(codes))
    labels = as_labels(name, factors, len(codes))
    rng = generator_of(name, key)
    num_factors = labels.shape[1]
    if num_factors == 1:
        raise ValueError(f"{name} tells factors from each other and needs two or more, got 1.")
    classifier = linear_classifier(name)
    partners = [Partners(column) for column in labels.T]

    def batches():
        shared = rng.permutation(np.arange(num_batches) % num_factors)
        differences = np.empty((num_batches, codes.shape[1]))
        for b, y in enumerate(shared):
            first = rng.integers(len(codes), size=batch_size)
            second = partners[y].draw(rng, first)
            differences[b] = np.mean(np.abs(codes[first] - codes[second]), axis=0)
        return differences, shared

    classifier.fit(*batches())
    differences, shared = batches()
    return score(classifier.predict(differences) == shared, num_factors)
