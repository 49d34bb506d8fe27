# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The straight paths of flow matching."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_decreasing
from numpyro_scores.processes._base import TimedProcess, hold_floats


@dataclass(frozen=True)
class RectifiedFlow(TimedProcess):
    r"""
    :math:`x_t = (1 - t) x_0 + t z`, from the data at :math:`t = 0` to noise at :math:`t = 1` (Liu,
    Gong & Liu 2023, "Flow straight and fast", equation 1; Lipman et al. 2023, "Flow matching for
    generative modeling", section 4.1, optimal transport, whose time runs the other way). So the
    scale is :math:`1 - t` and the noise level :math:`\sigma = t / (1 - t)`.

    An Euler step of :math:`dx / dt = v(x_t, t)` is a step of
    :class:`~numpyro_scores.samplers.DDIM` between the same times: `DDIM(num_steps, TimeSpacing())`.

    :param t_min: the first time: at time 0 there is no noise, and no score.
    :param t_max: the last time: at time 1 there is no signal. Data of unit variance in standard
        units; the noise level of 0.999 is 999.
    :raises ValueError: unless `0 < t_min < t_max < 1`.
    """

    t_min: float = 0.01
    t_max: float = 0.999

    def __post_init__(self):
        check_decreasing("(t_max, t_min)", [self.t_max, self.t_min])
        hold_floats(self, "t_min", "t_max")
        if self.t_max >= 1:
            raise ValueError(
                f"t_max must be below 1, where there is no signal, got {self.t_max}: 0.999 say."
            )

    @property
    def sigma_min(self) -> float:
        """The noise level at `t_min`."""
        return self.t_min / (1 - self.t_min)

    @property
    def sigma_max(self) -> float:
        """The noise level at `t_max`."""
        return self.t_max / (1 - self.t_max)

    def within(self, t: Array) -> Array:
        """A time as one from `t_min` to `t_max`."""
        return jnp.clip(t, self.t_min, self.t_max)

    def scale(self, t: Array) -> Array:
        r""":math:`1 - t`."""
        return 1 - self.within(t)

    def noise_level(self, t: Array) -> Array:
        r""":math:`t / (1 - t)`; a time beyond `t_min` or `t_max` counts as that."""
        t = self.within(t)
        return t / (1 - t)

    def time(self, sigma: Array) -> Array:
        r""":math:`\sigma / (1 + \sigma)`."""
        return sigma / (1 + sigma)
