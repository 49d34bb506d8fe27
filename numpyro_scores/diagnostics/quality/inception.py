# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The inception score: how sure a classifier is of each sample, and how many classes there are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._resampling import log_mean_exp
from numpyro_scores.diagnostics._kernels import BLOCK_SIZE
from numpyro_scores.diagnostics.quality.features import Features, flat_features


class InceptionScore(NamedTuple):
    r"""
    What :func:`inception_score` returns, all of shape `()`.

    - **score** - `sharpness * diversity`, from 1 to the number of classes.
    - **sharpness** - :math:`e^{-E H(c(\cdot | x))}`: 1 if the classifier is sure of every sample.
    - **diversity** - :math:`e^{H(E c(\cdot | x))}`: the number of classes that the samples fill.
    - **standard_error** - of the score.
    """

    score: Array
    sharpness: Array
    diversity: Array
    standard_error: Array


def inception_score(
    x: Array, classifier: Features, *, block_size: int = BLOCK_SIZE
) -> InceptionScore:
    r"""
    :math:`\exp E_x\, KL(c(\cdot | x) \,\|\, E_x c(\cdot | x))` (Salimans et al. 2016), with any
    classifier, and its two factors. It is blind to what the classifier does not tell apart: one
    picture of each class has the best score.

    :param x: independent samples, shape `(n, *event_shape)`, `n >= 2`.
    :param classifier: the logits of one point, `x -> (num_classes,)`, up to a constant.
    :param block_size: points classified at a time.
    :raises ValueError: if samples are too few, or they or the logits are not finite.
    """
    return _score(flat_features(classifier, x, block_size))


@jax.jit
def _score(logits):
    log_c = jax.nn.log_softmax(logits)
    log_mean = log_mean_exp(log_c)
    sharpness = jnp.exp(jnp.mean(jnp.sum(jnp.exp(log_c) * log_c, axis=1)))
    diversity = jnp.exp(-jnp.sum(jnp.exp(log_mean) * log_mean))
    divergences = jnp.sum(jnp.exp(log_c) * (log_c - log_mean[None]), axis=1)
    score = jnp.exp(jnp.mean(divergences))
    # To first order the mean class probabilities are fixed: they minimise the mean divergence.
    error = score * jnp.std(divergences, ddof=1) / jnp.sqrt(len(logits))
    return InceptionScore(score, sharpness, diversity, error)
