# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Noise processes: how the noise level grows, in the coordinates of the denoiser."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jax import Array, random

from numpyro_scores import schedules
from numpyro_scores._validation import check_decreasing


@runtime_checkable
class NoiseProcess(Protocol):
    """What an objective needs of a process: the noise level over time in [0, 1]."""

    def noise_level(self, t: Array) -> Array:
        """The standard deviation of the noise at time `t`."""
        ...


@dataclass(frozen=True)
class VarianceExploding:
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

    def noise_level(self, t: Array) -> Array:
        r""":math:`\sigma(t)`, the standard deviation of the noise at time `t`."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def noise_levels(self, num_levels: int) -> Array:
        """`num_levels` geometric noise levels from `sigma_max` down to `sigma_min`."""
        return schedules.geometric(self.sigma_max, self.sigma_min, num_levels)

    def sample_noise_level(self, key: Array, shape: tuple[int, ...] = ()) -> Array:
        """Log-uniform noise levels: those of a uniform time."""
        return self.noise_level(random.uniform(key, shape))
