# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The process that adds noise to data that keep their scale."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_decreasing
from numpyro_scores.processes._base import TimedProcess, hold_floats


@dataclass(frozen=True)
class VarianceExploding(TimedProcess):
    r"""
    :math:`x_t = x_0 + \sigma(t) z`, :math:`\sigma(t) = \sigma_{\min} (\sigma_{\max} /
    \sigma_{\min})^t` for :math:`t \in [0, 1]` (Song et al. 2021, equation 30).

    :param sigma_min: smallest noise level, in the units of the data: so small that this much noise
        does not matter.
    :param sigma_max: largest noise level: near the largest distance between two data points (Song &
        Ermon 2020, technique 1), so that nothing of the data is left but its mean.
    :raises ValueError: unless `0 < sigma_min < sigma_max`.
    """

    sigma_min: float
    sigma_max: float

    def __post_init__(self):
        check_decreasing("(sigma_max, sigma_min)", [self.sigma_max, self.sigma_min])
        hold_floats(self, "sigma_min", "sigma_max")

    def noise_level(self, t: Array) -> Array:
        r""":math:`\sigma(t)`, the standard deviation of the noise at time `t`."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def scale(self, t: Array) -> Array:
        """1: the data keep their scale."""
        return jnp.ones_like(t)

    def time(self, sigma: Array) -> Array:
        """The time at which the noise level is `sigma`."""
        return jnp.log(sigma / self.sigma_min) / jnp.log(self.sigma_max / self.sigma_min)
