# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The classifier two-sample test, cross-fitted, with the log density ratio that it learns."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.tree_util import Partial

from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics._samples import as_flat_pair, check_at_least_two
from numpyro_scores.diagnostics.two_sample import permutations
from numpyro_scores.diagnostics.two_sample.classifiers import Classifier, LogisticRegression


class ClassifierTest(NamedTuple):
    r"""
    What :func:`classifier_two_sample_test` returns.

    - **statistic** - mean log ratio over `x` minus that over `y`, in nats, shape `()`; of the true
      ratio it's :math:`KL(p, q) + KL(q, p)`.
    - **p_value** - of the hypothesis that the densities are one, shape `()`.
    - **accuracy** - share of samples classified rightly by a classifier that did not see them, the
      mean of the shares in `x` and in `y`, shape `()`: 1/2 for one density.
    - **log_ratio** - the estimate of :math:`\log p(x) / q(x)` from all samples, a function of one
      point, `event_shape -> ()`.
    - **log_ratio_x**, **log_ratio_y** - the log ratio at each sample, from a classifier that did
      not see it, shapes `(n,)` and `(m,)`.
    """

    statistic: Array
    p_value: Array
    accuracy: Array
    log_ratio: Callable[[Array], Array]
    log_ratio_x: Array
    log_ratio_y: Array


def classifier_two_sample_test(
    x: Array,
    y: Array,
    *,
    key: Array,
    classifier: Classifier = LogisticRegression(),
    num_folds: int = 2,
    num_permutations: int = 99,
    block_size: int = 16,
) -> ClassifierTest:
    r"""
    Train a classifier to tell samples of `p` from samples of `q`: with equal weight for both the
    best one has the logit :math:`\log p(x) / q(x)`, and no density is needed. Each sample is judged
    by a classifier that was trained without the sample's fold (Lopez-Paz & Oquab 2017, "Revisiting
    classifier two-sample tests", with the logit in place of its sign: Cheng & Cloninger 2022).

    The judgements of different folds depend on each other, so that a normal or binomial p-value
    would raise false alarms. That of a permutation test, with the classifiers trained anew, is
    exact; it costs `num_folds * (num_permutations + 1)` trainings.

    :param x: independent samples of `p`, shape `(n, *event_shape)`, `n >= num_folds`.
    :param y: independent samples of `q`, shape `(m, *event_shape)`, `m >= num_folds`.
    :param key: key of the permutations and of the training.
    :param classifier: `LogisticRegression()`, `SmallNetwork()`, or a :class:`Classifier`.
    :param num_folds: number of parts of the data, at least 2, each held out once.
    :param num_permutations: number of random permutations.
    :param block_size: permutations trained at a time.
    :raises ValueError: if samples are too few, not finite or of different shapes.
    """
    check_key("classifier_two_sample_test", key)
    check_at_least_two("num_folds", num_folds)
    check_count("num_permutations", num_permutations)
    check_count("block_size", block_size)
    event_shape = jnp.shape(x)[1:]
    x, y = as_flat_pair(x, y, at_least=num_folds)
    sizes = {"num_permutations": num_permutations, "block_size": block_size}
    judged, p_value, logit, unit = compiled(
        _cross_fit, classifier, x, y, key, num_folds=num_folds, **sizes
    )
    log_ratio_x, log_ratio_y = judged[: len(x)], judged[len(x) :]
    accuracy = (jnp.mean(log_ratio_x > 0) + jnp.mean(log_ratio_y < 0)) / 2
    log_ratio = Partial(partial(_of_point, event_shape), logit, unit)
    statistic = jnp.mean(log_ratio_x) - jnp.mean(log_ratio_y)
    return ClassifierTest(statistic, p_value, accuracy, log_ratio, log_ratio_x, log_ratio_y)


def balanced(labels: Array, kept: Array) -> Array:
    """Weights of sum 1 over those kept, one half for each label, shape `(n,)`."""
    first, second = (labels == 1) * kept, (labels == -1) * kept
    return first / (2 * jnp.sum(first)) + second / (2 * jnp.sum(second))


def _cross_fit(classifier, x, y, key, *, num_folds, num_permutations, block_size):
    key_permutations, key_training, key_all = random.split(key, 3)
    z = jnp.concatenate([x, y])
    mean, scale = jnp.mean(z, axis=0), jnp.std(z, axis=0)
    unit = mean, jnp.where(scale > 0, scale, 1)
    z = (z - mean[None]) / unit[1][None]
    labels = jnp.where(jnp.arange(len(z)) < len(x), 1, -1).astype(z.dtype)
    folds = jnp.append(jnp.arange(len(x)) % num_folds, jnp.arange(len(y)) % num_folds)

    def judge(rows_and_key):
        rows, key = rows_and_key
        points = z[rows]

        def out_of(fold, key):
            weights = balanced(labels, folds != fold)
            return jax.vmap(classifier(points, labels, weights, key=key))(points)

        each = jax.vmap(out_of)(jnp.arange(num_folds), random.split(key, num_folds))
        return each[folds, jnp.arange(len(z))]

    def difference(judged):
        return jnp.mean(judged[: len(x)]) - jnp.mean(judged[len(x) :])

    rows = jnp.arange(len(z))
    key_first, *_ = keys = random.split(key_training, 1 + num_permutations)
    judged = judge((rows, key_first))
    permuted = permutations.shuffled_rows(key_permutations, rows, num_permutations)
    by_chance = lax.map(
        lambda pair: difference(judge(pair)), (permuted, keys[1:]), batch_size=block_size
    )
    # What is learned from the same samples in another order differs by more than one rounding.
    rounding = jnp.sqrt(jnp.finfo(z.dtype).eps) * jnp.mean(jnp.abs(judged))
    p_value = permutations.p_value(jnp.append(difference(judged), by_chance), rounding)
    logit = classifier(z, labels, balanced(labels, jnp.ones_like(labels)), key=key_all)
    return judged, p_value, logit, unit


def _of_point(event_shape, logit, unit, point):
    mean, scale = unit
    point = jnp.asarray(point)
    if point.shape != event_shape:
        raise ValueError(
            f"log_ratio takes one point of shape {event_shape}, got shape {point.shape}. For a "
            "batch of points use jax.vmap."
        )
    return logit((point.reshape(-1) - mean) / scale)
