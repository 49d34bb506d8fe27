# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Frechet distance of two sets of samples, as if their features were normal."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores.diagnostics._kernels import BLOCK_SIZE
from numpyro_scores.diagnostics.quality.features import Features, pair_of_features


class FrechetDistance(NamedTuple):
    """
    What :func:`frechet_distance` returns, all of shape `()`.

    - **statistic** - the squared distance, as FID has it: `mean_part + covariance_part`.
    - **mean_part** - of the means.
    - **covariance_part** - of the covariances.
    """

    statistic: Array
    mean_part: Array
    covariance_part: Array


def frechet_distance(
    x: Array, y: Array, features: Features | None = None, *, block_size: int = BLOCK_SIZE
) -> FrechetDistance:
    r"""
    The squared Frechet distance of the normal distributions with the means and covariances of the
    features (Heusel et al. 2017, equation 6; FID if they are those of an Inception network),

    .. math:: |\mu_x - \mu_y|^2 + \operatorname{tr}\bigl(\Sigma_x + \Sigma_y
        - 2 (\Sigma_x \Sigma_y)^{1/2}\bigr).

    It is biased upwards, by about the number of features over that of samples: compare sets of one
    size only, or use :func:`kernel_distance`. Two densities with the same means and covariances
    have distance 0.

    :param x: samples, shape `(n, *event_shape)`, `n >= 2`.
    :param y: samples, shape `(m, *event_shape)`, `m >= 2`.
    :param features: any callable of one point; the points themselves unless given.
    :param block_size: points whose features are evaluated at a time.
    :raises ValueError: if samples or features are too few, not finite or of different shapes.
    """
    return _distance(*pair_of_features(features, x, y, block_size))


@jax.jit
def _distance(x, y):
    (mean_x, root_x), (mean_y, root_y) = _mean_and_root(x), _mean_and_root(y)
    # tr (Sx Sy)^{1/2} is the sum of the singular values of Rx Ry^T where S = R^T R: roots of no
    # squares, so that float32 will do, and covariances may be singular.
    cross = jnp.sum(jnp.linalg.svd(root_x @ root_y.T, compute_uv=False))
    mean_part = jnp.sum((mean_x - mean_y) ** 2)
    covariance_part = jnp.sum(root_x**2) + jnp.sum(root_y**2) - 2 * cross
    return FrechetDistance(mean_part + covariance_part, mean_part, covariance_part)


def _mean_and_root(x):
    mean = jnp.mean(x, axis=0, keepdims=True)
    return mean, jnp.linalg.qr((x - mean) / jnp.sqrt(len(x) - 1), mode="r")
