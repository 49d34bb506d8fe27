# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Precision and recall, density and coverage: balls about samples that hold their neighbours."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics._kernels import BLOCK_SIZE, rounding_of, squared_distances
from numpyro_scores.diagnostics.quality.features import Features, pair_of_features


class PrecisionRecall(NamedTuple):
    """
    What :func:`precision_recall` returns, both of shape `()`, from 0 to 1.

    - **precision** - share of the generated samples that lie where real ones do: quality.
    - **recall** - share of the real samples that lie where generated ones do: variety.
    """

    precision: Array
    recall: Array


class DensityCoverage(NamedTuple):
    """
    What :func:`density_coverage` returns, both of shape `()`.

    - **density** - how many real samples' balls a generated sample lies in, over `num_neighbours`:
      1 on average if the densities are one.
    - **coverage** - share of the real samples with a generated one in their ball, from 0 to 1.
    """

    density: Array
    coverage: Array


def precision_recall(
    real: Array,
    generated: Array,
    features: Features | None = None,
    *,
    num_neighbours: int = 3,
    block_size: int = BLOCK_SIZE,
) -> PrecisionRecall:
    """
    The improved precision and recall of Kynkäänniemi et al. (2019, equation 1): a set of samples
    covers the balls about each of them that reach to its `num_neighbours`-th nearest neighbour in
    the set. Precision is the share of the generated samples in the balls of the real ones, recall
    the share of the real samples in the balls of the generated ones. An outlier has a large ball:
    see :func:`density_coverage`.

    :param real: real samples, shape `(n, *event_shape)`.
    :param generated: generated samples, shape `(m, *event_shape)`.
    :param features: any callable of one point; the points themselves unless given.
    :param num_neighbours: `k`, less than the number of either samples.
    :param block_size: rows of the distance matrix, and points whose features are evaluated, at a
        time.
    :raises ValueError: if samples or features are too few, not finite or of different shapes.
    """
    pair = _pair(real, generated, features, num_neighbours, block_size)
    return _precision_recall(*pair, num_neighbours, block_size)


def density_coverage(
    real: Array,
    generated: Array,
    features: Features | None = None,
    *,
    num_neighbours: int = 5,
    block_size: int = BLOCK_SIZE,
) -> DensityCoverage:
    r"""
    Density and coverage (Naeem et al. 2020, equations 7 and 8), with balls :math:`B_i` about the
    real samples alone, which reach to their `num_neighbours`-th nearest neighbours,

    .. math:: \text{density} = \frac{1}{k m} \sum_{j=1}^m \sum_{i=1}^n 1[y_j \in B_i], \qquad
        \text{coverage} = \frac1n \sum_{i=1}^n 1[\exists j: y_j \in B_i].

    Outliers among the generated samples do no harm, and for one density both values are known:
    1, and :math:`1 - \prod_{i=1}^k (n - i) / (n + m - i)`.

    :param real: real samples, shape `(n, *event_shape)`.
    :param generated: generated samples, shape `(m, *event_shape)`.
    :param features: any callable of one point; the points themselves unless given.
    :param num_neighbours: `k`, less than the number of either samples.
    :param block_size: rows of the distance matrix, and points whose features are evaluated, at a
        time.
    :raises ValueError: if samples or features are too few, not finite or of different shapes.
    """
    pair = _pair(real, generated, features, num_neighbours, block_size)
    return _density_coverage(*pair, num_neighbours, block_size)


def _pair(real, generated, features, num_neighbours, block_size):
    check_count("num_neighbours", num_neighbours)
    return pair_of_features(features, real, generated, block_size, at_least=num_neighbours + 1)


def squared_radii(x: Array, num_neighbours: int, block_size: int) -> Array:
    """The squared distance of each point to its k-th nearest neighbour, shape `(n,)`."""

    def radius(point):
        # The nearest of all is the point itself.
        return -lax.top_k(-squared_distances(point, x), num_neighbours + 1)[0][-1]

    return lax.map(radius, x, batch_size=block_size)


def are_within(point: Array, others: Array, squares: Array) -> Array:
    """
    Whether points are as near as told, shape `(n,)`. On the edge of a ball is within: there lie the
    neighbours that it reaches to and, of pictures of few levels or of data with repeats, many more,
    whose distance is the same but for rounding.

    :param others: points, shape `(n, d)`.
    :param squares: squared radii, shape `(n,)` or `()`.
    """
    size = jnp.sum(point**2) + jnp.sum(others**2, axis=1)
    # Both distances are rounded.
    return squared_distances(point, others) <= squares + 2 * rounding_of(point) * size


def _shifted(*sets):
    # From one of the points, near their middle: the differences of points on a grid keep all of
    # their digits, which a mean does not.
    mean = jnp.mean(sets[0], axis=0, keepdims=True)
    middle = sets[0][jnp.argmin(jnp.sum((sets[0] - mean) ** 2, axis=1))]
    return tuple(x - middle[None] for x in sets)


@partial(jax.jit, static_argnums=(2, 3))
def _precision_recall(real, generated, num_neighbours, block_size):
    real, generated = _shifted(real, generated)

    def share_within(points, centres):
        squares = squared_radii(centres, num_neighbours, block_size)

        def is_within(point):
            return jnp.any(are_within(point, centres, squares))

        return jnp.mean(lax.map(is_within, points, batch_size=block_size), dtype=real.dtype)

    return PrecisionRecall(share_within(generated, real), share_within(real, generated))


@partial(jax.jit, static_argnums=(2, 3))
def _density_coverage(real, generated, num_neighbours, block_size):
    real, generated = _shifted(real, generated)
    squares = squared_radii(real, num_neighbours, block_size)

    def number_within(centre_and_square):
        centre, square = centre_and_square
        return jnp.sum(are_within(centre, generated, square))

    numbers = lax.map(number_within, (real, squares), batch_size=block_size)
    density = jnp.sum(numbers) / (num_neighbours * len(generated))
    return DensityCoverage(density, jnp.mean(numbers > 0, dtype=real.dtype))
