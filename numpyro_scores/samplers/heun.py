# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The probability flow by steps of second order, with churn or without."""

import math
from dataclasses import dataclass

import jax.numpy as jnp

from numpyro_scores.samplers._base import ReverseSampler, check_between


@dataclass(frozen=True)
class Heun(ReverseSampler):
    r"""
    Heun's method of second order for :math:`dx / d\sigma = (x - D(x, \sigma)) / \sigma`, each step
    after the noise level was raised by a factor of :math:`1 + \gamma` with fresh noise (Karras et
    al. 2022, algorithm 2), :math:`\gamma = \min(\text{churn} / N, \sqrt 2 - 1)` where
    :math:`\sigma \in [\text{churn\_min}, \text{churn\_max}]`. Two evaluations a step. The first
    step of a churned run looks above the `sigma_max` of the process by that factor.

    :param num_steps: number `N` of steps.
    :param spacing: where the noise levels lie.
    :param churn: :math:`S_{\text{churn}}`; 0 is the probability flow.
    :param churn_min: :math:`S_{\text{tmin}}`.
    :param churn_max: :math:`S_{\text{tmax}}`.
    :param churn_noise: :math:`S_{\text{noise}}`, the standard deviation of the fresh noise; 1 is
        right for the best denoiser.
    :raises ValueError: unless `churn >= 0`, `churn_noise > 0` and `churn_min <= churn_max`.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_between("churn", self.churn, 0, math.inf)
        check_between("churn_min", self.churn_min, 0, self.churn_max)
        check_between("churn_noise", self.churn_noise, 0, math.inf)

    @property
    def num_noises(self) -> int:
        """See :attr:`ReverseSampler.num_noises`."""
        return 1 if self.churn else 0

    @property
    def num_evals(self) -> int:
        """See :attr:`ReverseSampler.num_evals`."""
        return 2

    def step(self, denoiser, x, sigma, sigma_next, noise):
        """See :meth:`ReverseSampler.step`."""
        if self.churn:
            gamma = min(self.churn / self.num_steps, math.sqrt(2) - 1)
            within = (self.churn_min <= sigma) & (sigma <= self.churn_max)
            raised = sigma * jnp.where(within, 1 + gamma, 1)
            x = x + self.churn_noise * jnp.sqrt(raised**2 - sigma**2) * noise[0]
            sigma = raised
        h = sigma_next - sigma
        slope = (x - denoiser(x, sigma)) / sigma
        euler = x + h * slope
        return x + h / 2 * (slope + (euler - denoiser(euler, sigma_next)) / sigma_next)
