# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The measure of the FactorVAE: the code that varies least tells which factor is fixed."""

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics._samples import check_at_least_two
from numpyro_scores.diagnostics.representation.inputs import (
    as_codes,
    as_labels,
    generator_of,
    scaled,
)
from numpyro_scores.diagnostics.representation.votes import Partners, SharedFactorScore, score


def factor_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    key: Array,
    num_batches: int = 1_000,
    batch_size: int = 64,
) -> SharedFactorScore:
    r"""
    The accuracy of a vote of majority (Kim & Mnih 2018, section 2): in a batch of samples with one
    value of factor `k` the code of the least variance, over its variance in all samples, votes for
    `k`,

    .. math:: d^* = \arg\min_d \operatorname{var}_{\text{batch}}(z_d) / \operatorname{var}(z_d),
        \qquad \hat k(d) = \arg\max_k V_{dk},

    with :math:`V_{dk}` the number of `num_batches` batches in which code `d` varied least and `k`
    was fixed. The value is of as many other batches, where the paper counts the errors in the votes
    themselves. Constant codes have no vote. Samples are among the given ones, whose factors should
    be independent.

    :param codes: shape `(n, num_codes)`.
    :param factors: discrete, shape `(n, num_factors)`.
    :param key: key of the batches.
    :param num_batches: number of batches that vote, and that are asked of.
    :param batch_size: samples in a batch, at least 2.
    :raises ValueError: if all codes are constant, there are more factors than samples, a factor has
        one value or is continuous, or entries are not finite.
    """
    name = "factor_vae_score"
    check_count("num_batches", num_batches)
    check_at_least_two("batch_size", batch_size)
    codes = scaled(as_codes(codes))
    codes = codes[:, codes.std(axis=0) > 0]
    if not codes.size:
        raise ValueError(f"{name} needs a code that varies, but each has one value.")
    labels = as_labels(name, factors, len(codes))
    rng = generator_of(name, key)
    num_factors = labels.shape[1]
    partners = [Partners(column) for column in labels.T]

    def batches():
        fixed = rng.permutation(np.arange(num_batches) % num_factors)
        least = np.empty(num_batches, np.int64)
        for b, k in enumerate(fixed):
            samples = np.full(batch_size, rng.integers(len(codes)))
            least[b] = np.argmin(np.var(codes[partners[k].draw(rng, samples)], axis=0))
        return least, fixed

    votes = np.zeros((codes.shape[1], num_factors), np.int64)
    np.add.at(votes, batches(), 1)
    least, fixed = batches()
    return score(np.argmax(votes, axis=1)[least] == fixed, num_factors)
