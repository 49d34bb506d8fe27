# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Where noise levels lie, from large to small: as numbers, and as a setting of samplers."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_count, check_decreasing, check_positive
from numpyro_scores.processes._base import TimedProcess, levels_of_equal_times, with_ends


def geometric(sigma_max: float, sigma_min: float, num_levels: int) -> Array:
    r"""
    :math:`\sigma_k = \sigma_{\max} (\sigma_{\min} / \sigma_{\max})^{k / (L - 1)}`: neighbours have
    one ratio (Song & Ermon 2019, section 4.2).

    :return: `num_levels` levels, shape `(num_levels,)`, strictly decreasing.
    """
    _check(sigma_max, sigma_min, num_levels)
    return with_ends(jnp.geomspace(sigma_max, sigma_min, num_levels), sigma_max, sigma_min)


def karras(sigma_max: float, sigma_min: float, num_levels: int, rho: float = 7.0) -> Array:
    r"""
    :math:`\sigma_k = (\sigma_{\max}^{1/\rho} + \tfrac{k}{L - 1}
    (\sigma_{\min}^{1/\rho} - \sigma_{\max}^{1/\rho}))^\rho` (Karras et al. 2022, equation 5).

    :return: `num_levels` levels, shape `(num_levels,)`, strictly decreasing.
    """
    _check(sigma_max, sigma_min, num_levels)
    check_positive("rho", rho)
    return _karras_levels(sigma_max, sigma_min, num_levels, rho)


def _karras_levels(sigma_from, sigma, num_levels, rho):
    roots = jnp.linspace(sigma_from ** (1 / rho), sigma ** (1 / rho), num_levels)
    return with_ends(roots**rho, sigma_from, sigma)


def _check(sigma_max: float, sigma_min: float, num_levels: int) -> None:
    check_decreasing("(sigma_max, sigma_min)", [sigma_max, sigma_min])
    check_count("num_levels", num_levels)
    if num_levels < 2:
        raise ValueError(f"num_levels must be at least 2, got {num_levels}.")


@dataclass(frozen=True)
class KarrasSpacing:
    r"""
    Equally spaced in :math:`\sigma^{1 / \rho}` (Karras et al. 2022, equation 5).

    :param rho: 7 in that paper, which crowds the steps near the data; 1 is uniform.
    """

    rho: float = 7.0

    def __post_init__(self):
        check_positive("rho", self.rho)

    def __call__(
        self, process: TimedProcess, sigma: Any, num_levels: int, sigma_from: Any = None
    ) -> Array:
        """
        :param sigma: the last level.
        :param sigma_from: the first level; by default the `sigma_max` of the process.
        :return: noise levels from large to small, shape `(num_levels,)`.
        """
        first = jnp.asarray(process.sigma_max if sigma_from is None else sigma_from, float)
        return _karras_levels(first, sigma, num_levels, self.rho)


@dataclass(frozen=True)
class TimeSpacing:
    """Equally spaced in the time of the process: the steps of a DDPM, or every so many of them."""

    def __call__(
        self, process: TimedProcess, sigma: Any, num_levels: int, sigma_from: Any = None
    ) -> Array:
        """See :meth:`KarrasSpacing.__call__`."""
        return levels_of_equal_times(process, sigma, num_levels, sigma_from)


Spacing = KarrasSpacing | TimeSpacing
