# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The chain of denoising diffusion probabilistic models."""

from dataclasses import dataclass
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.processes._base import TimedProcess, hold_floats


@dataclass(frozen=True)
class DDPM(TimedProcess):
    r"""
    The chain :math:`x_k = \sqrt{1 - \beta_k}\, x_{k-1} + \sqrt{\beta_k}\, z` with :math:`\beta_1,
    \dots, \beta_N` equally spaced (Ho, Jain & Abbeel 2020, equations 2 and 4): :math:`x_k \mid x_0
    \sim N(\sqrt{\bar\alpha_k}\, x_0, (1 - \bar\alpha_k) I)` with :math:`\bar\alpha_k =
    \prod_{j \le k} (1 - \beta_j)`. So the scale is :math:`\sqrt{\bar\alpha_k}` and the noise level
    :math:`\sigma_k = \sqrt{1 / \bar\alpha_k - 1}`.

    The time of step `k` is `(k - 1) / (N - 1)`; between two steps :math:`\log \sigma` is
    interpolated, so that `noise_levels(num_steps)` are those of the chain and fewer skip steps.

    :param num_steps: number `N` of steps.
    :param beta_min: :math:`\beta_1`.
    :param beta_max: :math:`\beta_N`; with the defaults :math:`\sigma_{\max} = 157`.
    :raises ValueError: unless `num_steps >= 2` and `0 < beta_min <= beta_max < 1`.
    """

    num_steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 2e-2

    def __post_init__(self):
        check_count("num_steps", self.num_steps)
        check_positive("beta_min", self.beta_min)
        if self.num_steps < 2 or not self.beta_min <= self.beta_max < 1:
            raise ValueError(
                "DDPM needs num_steps >= 2 and 0 < beta_min <= beta_max < 1, got "
                f"{self.num_steps}, {self.beta_min} and {self.beta_max}."
            )
        hold_floats(self, "beta_min", "beta_max")

    @property
    def sigma_min(self) -> float:
        """The noise level of the first step."""
        return float(np.exp(_log_levels(self)[0]))

    @property
    def sigma_max(self) -> float:
        """The noise level of the last step."""
        return float(np.exp(_log_levels(self)[-1]))

    def scale(self, t: Array) -> Array:
        r""":math:`s = 1 / \sqrt{1 + \sigma^2}`."""
        return 1 / jnp.sqrt(1 + self.noise_level(t) ** 2)

    def noise_level(self, t: Array) -> Array:
        r""":math:`\sigma(t)`."""
        step = jnp.asarray(t, float) * (self.num_steps - 1)
        return jnp.exp(jnp.interp(step, np.arange(self.num_steps), _log_levels(self)))

    def time(self, sigma: Array) -> Array:
        """The time at which the noise level is `sigma`."""
        return self.step(sigma) / (self.num_steps - 1)

    def step(self, sigma: Array) -> Array:
        """`k - 1`, what a network that counts its steps from zero sees, as a real number."""
        return jnp.interp(jnp.log(sigma), _log_levels(self), np.arange(self.num_steps))


@lru_cache(maxsize=32)
def _log_levels(process: DDPM) -> np.ndarray:
    betas = np.linspace(process.beta_min, process.beta_max, process.num_steps)
    return 0.5 * np.log(np.expm1(-np.cumsum(np.log1p(-betas))))
