# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A process of which only the noise levels of its steps are known."""

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores.processes import TimedProcess


@dataclass(frozen=True)
class NoiseTable(TimedProcess):
    r"""
    :math:`x_k \mid x_0 \sim N(\sqrt{\bar\alpha_k}\, x_0, (1 - \bar\alpha_k) I)` for steps `k`, told
    by :math:`\log \sigma_k = \log \sqrt{1 / \bar\alpha_k - 1}`. The time of step `k = 0, \dots, N -
    1` is :math:`k / (N - 1)`; between two steps :math:`\log \sigma` is interpolated, and a network
    is asked at a step that is no integer.

    :param log_levels: :math:`\log \sigma_k`, increasing, two at least.
    :raises ValueError: unless they are finite and increase.
    """

    log_levels: tuple[float, ...]

    def __post_init__(self):
        levels = np.asarray(self.log_levels)
        if levels.ndim != 1 or levels.size < 2 or not np.isfinite(levels).all():
            raise ValueError(f"log_levels must be two finite numbers or more, got {levels}.")
        if not (np.diff(levels) > 0).all():
            first = int(np.argmax(np.diff(levels) <= 0))
            raise ValueError(f"log_levels must increase, but do not from step {first} to the next.")

    def __repr__(self) -> str:
        return (
            f"NoiseTable({len(self.log_levels)} levels from {self.sigma_min:.4g} to "
            f"{self.sigma_max:.4g})"
        )

    @cached_property
    def _levels(self) -> np.ndarray:
        return np.asarray(self.log_levels)

    @property
    def sigma_min(self) -> float:
        """The noise level of the first step."""
        return float(np.exp(self.log_levels[0]))

    @property
    def sigma_max(self) -> float:
        """The noise level of the last step."""
        return float(np.exp(self.log_levels[-1]))

    def scale(self, t: Array) -> Array:
        r""":math:`s = 1 / \sqrt{1 + \sigma^2}`."""
        return 1 / jnp.sqrt(1 + self.noise_level(t) ** 2)

    def noise_level(self, t: Array) -> Array:
        r""":math:`\sigma(t)`."""
        steps = np.arange(len(self._levels))
        return jnp.exp(jnp.interp(jnp.asarray(t, float) * steps[-1], steps, self._levels))

    def time(self, sigma: Array) -> Array:
        """The time at which the noise level is `sigma`."""
        return self.step(sigma) / (len(self._levels) - 1)

    def step(self, sigma: Array) -> Array:
        """The step at which the noise level is `sigma`, a real number."""
        return jnp.interp(jnp.log(sigma), self._levels, np.arange(len(self._levels)))
