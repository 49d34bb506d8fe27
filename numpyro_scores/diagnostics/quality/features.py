# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Features of samples: what the measures of sample quality compare."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import as_pytree
from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics._samples import as_flat_pair, as_samples, mapped

Features = Callable[[Array], Array]


def flat_features(features: Features, x: Array, block_size: int, at_least: int = 2) -> Array:
    """The features of each sample, shape `(n, d)`; they must be finite."""
    check_count("block_size", block_size)
    x = as_samples("x", x, at_least)
    values = compiled(_evaluate, as_pytree("features", features), x, block_size=block_size)
    return as_samples("features(x)", values.reshape(len(x), -1))


def pair_of_features(
    features: Features | None, x: Array, y: Array, block_size: int, at_least: int = 2
) -> tuple[Array, Array]:
    """The features of both sets, or the samples themselves: shapes `(n, d)` and `(m, d)`."""
    if features is None:
        check_count("block_size", block_size)
        return as_flat_pair(x, y, at_least)
    first, second = (flat_features(features, z, block_size, at_least) for z in (x, y))
    return as_flat_pair(first, second, at_least)


def _evaluate(features, x, block_size):
    return mapped(lambda point: jnp.ravel(features(point)), x, block_size)
