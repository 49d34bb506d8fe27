# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Fisher divergence between two scores, over samples."""

import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import Score, as_pytree, as_score
from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics._estimates import Estimate, mean_and_error
from numpyro_scores.diagnostics._kernels import BLOCK_SIZE
from numpyro_scores.diagnostics._samples import as_samples, mapped


def fisher_divergence(
    x: Array, score: Score, reference: Score, *, block_size: int = BLOCK_SIZE
) -> Estimate:
    r"""
    :math:`\frac12 E_p |s(x) - \nabla \log p(x)|^2`, with the mean over samples of `p` and its
    standard error. It is 0 if and only if the scores agree where `p` is positive, in units of
    :math:`x^{-2}`.

    :param x: independent samples of `p`, shape `(n, *event_shape)`, `n >= 2`.
    :param score: the score `s` of one point, an energy, or a distribution.
    :param reference: :math:`\nabla \log p`, the energy of `p`, or `p` as a distribution.
    :param block_size: points at which the scores are evaluated at a time.
    :raises ValueError: if samples are too few or not finite, or if a score has another shape.
    """
    check_count("block_size", block_size)
    x = as_samples("x", x)
    scores = as_pytree("score", score), as_pytree("reference", reference)
    return compiled(_fisher_divergence, scores, x, block_size=block_size)


def _fisher_divergence(scores, x, block_size):
    score, reference = scores
    score, reference = as_score(score, x[0]), as_score(reference, x[0])
    half_squares = mapped(lambda x: jnp.sum((score(x) - reference(x)) ** 2) / 2, x, block_size)
    return mean_and_error(half_squares)
