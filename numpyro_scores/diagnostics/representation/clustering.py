# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether the clusters of a code are the classes of the data."""

from typing import NamedTuple

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
from numpyro_scores.diagnostics.representation.learners import (
    clusters,
    homogeneity_completeness_v,
)


class ClusteringScores(NamedTuple):
    """
    What :func:`clustering_scores` returns, each from 0 to 1.

    - **value** - the V-measure, the harmonic mean of the other two.
    - **homogeneity** - whether a cluster has samples of one class only.
    - **completeness** - whether the samples of a class lie in one cluster.
    """

    value: float
    homogeneity: float
    completeness: float


def clustering_scores(
    codes: ArrayLike, labels: ArrayLike, *, key: Array, num_clusters: int | None = None
) -> ClusteringScores:
    r"""
    Homogeneity :math:`h = 1 - H(c | k) / H(c)`, completeness :math:`1 - H(k | c) / H(k)` and their
    harmonic mean (Rosenberg & Hirschberg 2007), of classes `c` and the clusters `k` that k-means
    finds in codes of unit variance.

    :param codes: shape `(n, num_codes)`.
    :param labels: the class of each sample, a number or a name, shape `(n,)`.
    :param key: of the starts of k-means, of which the best of ten is taken.
    :param num_clusters: as many as there are classes unless given.
    :raises ValueError: for one class, more clusters than samples, or entries that are not finite.
    :raises ImportError: without scikit-learn.
    """
    name = "clustering_scores"
    codes = scaled(as_codes(codes))
    if np.ndim(labels) != 1:
        raise ValueError(
            f"labels must be one class for each sample, shape (n,), got shape {np.shape(labels)}."
        )
    labels = np.asarray(labels)
    if labels.dtype.kind in "US":  # names of classes
        labels = np.unique(labels, return_inverse=True)[1]
    classes = as_labels(name, labels[:, None], len(codes))[:, 0]
    if num_clusters is None:
        num_clusters = int(classes.max()) + 1
    check_count("num_clusters", num_clusters)
    if num_clusters > len(codes):
        raise ValueError(f"num_clusters is {num_clusters}, of {len(codes)} samples: take fewer.")
    found = clusters(name, codes, num_clusters, generator_of(name, key))
    homogeneity, completeness, v_measure = homogeneity_completeness_v(name, classes, found)
    return ClusteringScores(float(v_measure), float(homogeneity), float(completeness))
