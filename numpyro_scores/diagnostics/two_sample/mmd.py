# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Maximum mean discrepancy: whether two sets of samples are of one density."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm

from numpyro_scores._callables import as_pytree
from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics import _kernels
from numpyro_scores.diagnostics._estimates import mean_and_error
from numpyro_scores.diagnostics._samples import as_flat_pair
from numpyro_scores.diagnostics.two_sample import permutations

RadialKernel = Callable[[Array], Array]


class MMDTest(NamedTuple):
    """
    What :func:`mmd_test` and :func:`linear_mmd_test` return, all of shape `()`.

    - **statistic** - unbiased estimate of the squared discrepancy: around 0, and also negative,
      where the densities are one.
    - **p_value** - of the hypothesis that they are.
    - **lengthscale** - of the kernel.
    """

    statistic: Array
    p_value: Array
    lengthscale: Array


def mmd_test(
    x: Array,
    y: Array,
    *,
    key: Array,
    kernel: RadialKernel = _kernels.gaussian_kernel,
    lengthscale: float | None = None,
    num_permutations: int = 500,
    block_size: int = _kernels.BLOCK_SIZE,
) -> MMDTest:
    r"""
    The unbiased maximum mean discrepancy (Gretton et al. 2012, "A kernel two-sample test", equation
    3),

    .. math:: \frac{1}{n (n - 1)} \sum_{i \ne j} k(x_i, x_j)
        + \frac{1}{m (m - 1)} \sum_{i \ne j} k(y_i, y_j) - \frac{2}{n m} \sum_{ij} k(x_i, y_j),

    and the exact p-value of a permutation test. Memory is that of `block_size` rows of the kernel
    matrix; time grows as `(n + m) ** 2 * (d + num_permutations)`.

    :param x: independent samples, shape `(n, *event_shape)`, `n >= 2`.
    :param y: independent samples, shape `(m, *event_shape)`, `m >= 2`.
    :param key: key of the permutations.
    :param kernel: a positive definite function of :math:`|x - y|^2 / \ell^2`, element by element.
    :param lengthscale: :math:`\ell`; the median distance of all samples unless given.
    :param num_permutations: number of random permutations.
    :param block_size: rows of the kernel matrix in memory at a time.
    :raises ValueError: if samples are too few, not finite or of different shapes.
    """
    check_key("mmd_test", key)
    check_count("num_permutations", num_permutations)
    check_count("block_size", block_size)
    x, y = as_flat_pair(x, y)
    z = jnp.concatenate([x, y])
    scale = _kernels.lengthscale_or_median(lengthscale, z - jnp.mean(z, axis=0, keepdims=True))
    labels = permutations.labels(key, len(x), len(y), num_permutations, z.dtype)
    sizes = {"n": len(x), "block_size": block_size}
    kernel = as_pytree("kernel", kernel)
    statistics, rounding = compiled(squared_mmd, kernel, z, labels, scale, **sizes)
    return MMDTest(statistics[0], permutations.p_value(statistics, rounding), scale)


def squared_mmd(
    kernel: RadialKernel, z: Array, labels: Array, lengthscale: Array, *, n: int, block_size: int
) -> tuple[Array, Array]:
    """
    The unbiased statistic of each labelling with `n` samples in the first set, and how far apart
    equal ones may come out.
    """

    def row(point, points):
        return kernel(_kernels.squared_distances(point, points) / lengthscale**2)

    within_x, across, within_y = permutations.sums_of_pairs(row, z, labels, block_size)
    m = len(z) - n
    within = within_x / (n * (n - 1)) + within_y / (m * (m - 1))
    across = 2 * across / (n * m)
    # The kernel may be negative, and 1 is the size of its values.
    size = jnp.maximum(jnp.max(within + jnp.abs(across)), 1)
    return within - across, permutations.rounding_of_sums(len(z), size)


def linear_mmd_test(
    x: Array,
    y: Array,
    *,
    kernel: RadialKernel = _kernels.gaussian_kernel,
    lengthscale: float | None = None,
) -> MMDTest:
    r"""
    The linear-time estimate of the squared maximum mean discrepancy (Gretton et al. 2012, lemma
    14): the mean over :math:`i` of

    .. math:: k(x_{2i-1}, x_{2i}) + k(y_{2i-1}, y_{2i}) - k(x_{2i-1}, y_{2i}) - k(x_{2i}, y_{2i-1}),

    whose p-value is that of a normal distribution. For so many samples that `(n + m) ** 2` is out
    of reach; with as many samples its power is much less than that of :func:`mmd_test`.

    :param x: independent samples, shape `(n, *event_shape)`, `n >= 8`.
    :param y: as many of the other density; of the longer set the first ones are used.
    :param kernel: a positive definite function of :math:`|x - y|^2 / \ell^2`, element by element.
    :param lengthscale: :math:`\ell`; the median distance of all samples unless given.
    :raises ValueError: if samples are too few, not finite or of different shapes.
    """
    x, y = as_flat_pair(x, y, at_least=8)
    z = jnp.concatenate([x, y])
    scale = _kernels.lengthscale_or_median(lengthscale, z - jnp.mean(z, axis=0, keepdims=True))
    return compiled(_linear, as_pytree("kernel", kernel), x, y, scale)


def _linear(kernel, x, y, lengthscale):
    end = min(len(x), len(y)) // 2 * 2
    (x, x_next), (y, y_next) = ((z[:end:2], z[1:end:2]) for z in (x, y))

    def k(a, b):
        return kernel(jnp.sum((a - b) ** 2, axis=1) / lengthscale**2)

    mean, error = mean_and_error(k(x, x_next) + k(y, y_next) - k(x, y_next) - k(x_next, y))
    # All terms are 0 where the sets are one, or where all samples are.
    z = mean / jnp.where(error > 0, error, 1)
    return MMDTest(mean, norm.sf(jnp.where((error > 0) | (mean == 0), z, jnp.inf)), lengthscale)
