# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Processes whose data shrink while the noise grows, by a rate that is linear in time."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_positive
from numpyro_scores.processes._base import TimedProcess, hold_floats


@dataclass(frozen=True)
class _LinearRate(TimedProcess):
    r"""
    :math:`B(t) = \int_0^t \beta = \beta_{\min} t + \tfrac12 (\beta_{\max} - \beta_{\min}) t^2`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    def __post_init__(self):
        for name in ("beta_min", "beta_max", "t_min"):
            check_positive(name, getattr(self, name))
            hold_floats(self, name)
        if self.beta_min > self.beta_max:
            raise ValueError(
                f"beta_min must be at most beta_max, got {self.beta_min} and {self.beta_max}."
            )
        if self.t_min >= 1:
            raise ValueError(f"t_min must be below 1, the end of the process, got {self.t_min}.")

    @property
    def sigma_min(self) -> float:
        """The noise level at `t_min`."""
        return float(self._level(self._integral(self.t_min), math))

    @property
    def sigma_max(self) -> float:
        """The noise level at time 1."""
        return float(self._level(self._integral(1.0), math))

    def _integral(self, t):
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    @staticmethod
    @abstractmethod
    def _level(integral, xp):
        """The noise level where the integral of the rate is `integral`; `xp` is `math` or JAX."""

    @staticmethod
    @abstractmethod
    def _integral_of(sigma):
        """Its inverse."""

    def scale(self, t: Array) -> Array:
        r""":math:`s(t) = e^{-B(t) / 2}`."""
        return jnp.exp(-self._integral(jnp.maximum(t, self.t_min)) / 2)

    def noise_level(self, t: Array) -> Array:
        r""":math:`\sigma(t)`; a time below `t_min` counts as `t_min`."""
        return self._level(self._integral(jnp.maximum(t, self.t_min)), jnp)

    def time(self, sigma: Array) -> Array:
        """The time at which the noise level is `sigma`."""
        integral = self._integral_of(sigma)
        root = jnp.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)


@dataclass(frozen=True)
class VariancePreserving(_LinearRate):
    r"""
    :math:`dx = -\tfrac12 \beta(t) x\, dt + \sqrt{\beta(t)}\, dw` with :math:`\beta(t) =
    \beta_{\min} + t (\beta_{\max} - \beta_{\min})` (Song et al. 2021, equations 11 and 32): given
    :math:`x_0`, the mean is :math:`e^{-B/2} x_0` and the variance :math:`1 - e^{-B}`, with
    :math:`B(t) = \int_0^t \beta`. So the scale is :math:`e^{-B/2}` and the noise level
    :math:`\sigma = \sqrt{e^B - 1}`. Data of unit variance keep it.

    :param beta_min: the rate at time 0.
    :param beta_max: the rate at time 1; with the default :math:`\sigma_{\max} = 152`.
    :param t_min: the first time: at time 0 there is no noise, and no score to learn.
    :raises ValueError: unless `0 < beta_min <= beta_max` and `0 < t_min < 1`.
    """

    @staticmethod
    def _level(integral, xp):
        return xp.sqrt(xp.expm1(integral))

    @staticmethod
    def _integral_of(sigma):
        return jnp.log1p(sigma**2)


@dataclass(frozen=True)
class SubVariancePreserving(_LinearRate):
    r"""
    :math:`dx = -\tfrac12 \beta(t) x\, dt + \sqrt{\beta(t) (1 - e^{-2 B(t)})}\, dw` (Song et al.
    2021, equation 12): the mean of :class:`VariancePreserving` and the variance
    :math:`(1 - e^{-B})^2`, which is smaller. So the noise level is :math:`\sigma = e^{B/2} -
    e^{-B/2}`, from 0.012 with the defaults.

    :param beta_min: as of :class:`VariancePreserving`.
    :param beta_max: as of :class:`VariancePreserving`.
    :param t_min: as of :class:`VariancePreserving`, but later: at a time of 0.001 the noise level
        is 0.00011, where `float32` leaves nothing of the score of a denoiser.
    :raises ValueError: as :class:`VariancePreserving`.
    """

    t_min: float = 0.03

    @staticmethod
    def _level(integral, xp):
        return 2 * xp.sinh(integral / 2)

    @staticmethod
    def _integral_of(sigma):
        return 2 * jnp.arcsinh(sigma / 2)
