# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sequences of noise levels, from large to small."""

import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_count, check_decreasing, check_positive


def geometric(sigma_max: float, sigma_min: float, num_levels: int) -> Array:
    r"""
    :math:`\sigma_k = \sigma_{\max} (\sigma_{\min} / \sigma_{\max})^{k / (L - 1)}`: neighbours have
    one ratio (Song & Ermon 2019, section 4.2).

    :return: `num_levels` levels, shape `(num_levels,)`, strictly decreasing.
    """
    _check(sigma_max, sigma_min, num_levels)
    return _with_ends(jnp.geomspace(sigma_max, sigma_min, num_levels), sigma_max, sigma_min)


def karras(sigma_max: float, sigma_min: float, num_levels: int, rho: float = 7.0) -> Array:
    r"""
    :math:`\sigma_k = (\sigma_{\max}^{1/\rho} + \tfrac{k}{L - 1}
    (\sigma_{\min}^{1/\rho} - \sigma_{\max}^{1/\rho}))^\rho` (Karras et al. 2022, equation 5).

    :return: `num_levels` levels, shape `(num_levels,)`, strictly decreasing.
    """
    _check(sigma_max, sigma_min, num_levels)
    check_positive("rho", rho)
    roots = jnp.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), num_levels)
    return _with_ends(roots**rho, sigma_max, sigma_min)


def _with_ends(levels: Array, sigma_max: float, sigma_min: float) -> Array:
    # Exact in float32 too: a level above the largest trained one is one that nobody trained.
    return levels.at[0].set(sigma_max).at[-1].set(sigma_min)


def _check(sigma_max: float, sigma_min: float, num_levels: int) -> None:
    check_decreasing("(sigma_max, sigma_min)", [sigma_max, sigma_min])
    check_count("num_levels", num_levels)
    if num_levels < 2:
        raise ValueError(f"num_levels must be at least 2, got {num_levels}.")
