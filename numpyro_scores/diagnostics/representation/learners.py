# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Classifiers, trees and clusters of scikit-learn, which loads on first use."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

NUM_TREES = 32


@contextmanager
def scikit_learn(name: str) -> Generator[None]:
    """Say who wanted scikit-learn, if it is not there."""
    try:
        yield
    except ImportError:
        raise ImportError(
            f"{name} learns with scikit-learn: pip install 'numpyro-scores[representations]'."
        ) from None


def linear_classifier(name: str) -> Any:
    """Logistic regression on features of unit scale."""
    with scikit_learn(name):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), LogisticRegression(C=100.0, max_iter=1_000))


def thresholds(name: str, num_labels: int) -> Any:
    """A classifier of one number by `num_labels - 1` thresholds, all labels of equal weight."""
    with scikit_learn(name):
        from sklearn.tree import DecisionTreeClassifier
    return DecisionTreeClassifier(
        max_leaf_nodes=num_labels, class_weight="balanced", random_state=0
    )


def forest(name: str, is_classifier: bool) -> Any:
    """A random forest that sees all codes at each split, so that importance goes to the best."""
    with scikit_learn(name):
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    kind = RandomForestClassifier if is_classifier else RandomForestRegressor
    return kind(NUM_TREES, max_features=None, min_samples_leaf=2)


def fresh(name: str, learner: Any, rng: np.random.Generator) -> Any:
    """An untrained copy of a learner, with a seed if it takes one."""
    with scikit_learn(name):
        from sklearn.base import clone
    learner = clone(learner)
    if "random_state" in learner.get_params():
        learner.set_params(random_state=int(rng.integers(2**31)))
    return learner


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The mean over labels of the share of its samples that are told."""
    return float(np.mean([np.mean(predicted[labels == a] == a) for a in np.unique(labels)]))


def clusters(name: str, codes: np.ndarray, num_clusters: int, rng: np.random.Generator) -> Any:
    """The cluster of each sample, by k-means."""
    with scikit_learn(name):
        from sklearn.cluster import KMeans
    seed = int(rng.integers(2**31))
    return KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(codes)


def homogeneity_completeness_v(name: str, labels: Any, found: Any) -> tuple[float, float, float]:
    """Rosenberg & Hirschberg's (2007) three measures of clusters."""
    with scikit_learn(name):
        from sklearn.metrics import homogeneity_completeness_v_measure
    return homogeneity_completeness_v_measure(labels, found)
