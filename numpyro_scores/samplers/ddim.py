# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Steps that take the denoised point for the clean one.

In the coordinates of the denoiser, :math:`x_t / s(t)`, those of a variance-preserving chain and of
any other process are the same: the clean point, what is kept of the noise, and fresh noise.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from numpyro_scores.samplers._base import ReverseSampler, check_between


def bridge_variance(sigma, sigma_next):
    r"""
    :math:`\sigma'^2 (\sigma^2 - \sigma'^2) / \sigma^2`, the variance of :math:`x_{\sigma'}` given
    :math:`x_0` and :math:`x_\sigma` (of a DDPM
    :math:`\tilde\beta / \bar\alpha`; Ho, Jain & Abbeel 2020, equation 7).
    """
    return sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2


def _step(denoiser, x, sigma, sigma_next, noise, eta):
    variance = eta**2 * bridge_variance(sigma, sigma_next)
    denoised = denoiser(x, sigma)
    kept = jnp.sqrt(sigma_next**2 - variance) / sigma
    return denoised + kept * (x - denoised) + jnp.sqrt(variance) * noise


@dataclass(frozen=True)
class DDIM(ReverseSampler):
    r"""
    Denoising diffusion implicit steps (Song, Meng & Ermon 2021, equations 12 and 16):

    .. math:: x' = D + \sqrt{\sigma'^2 - \eta^2 v} \; \frac{x - D}{\sigma} + \eta \sqrt v\, z, \quad
              v = \sigma'^2 (\sigma^2 - \sigma'^2) / \sigma^2,

    of first order, one evaluation a step. With :math:`\eta = 0` it is Euler's method for the
    probability flow in :math:`\sigma`, with 1 it is :class:`Ancestral`.

    :param num_steps: number of steps.
    :param spacing: where the noise levels lie.
    :param eta: from 0, no noise, to 1.
    """

    eta: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_between("eta", self.eta, 0, 1)

    def step(self, denoiser, x, sigma, sigma_next, noise):
        """See :meth:`ReverseSampler.step`."""
        return _step(denoiser, x, sigma, sigma_next, noise[0], self.eta)


@dataclass(frozen=True)
class Ancestral(ReverseSampler):
    r"""
    Ancestral sampling of the chain (Ho, Jain & Abbeel 2020, algorithm 2, with the variance
    :math:`\tilde\beta`):

    .. math:: x' \sim N\!\left( D + \frac{\sigma'^2}{\sigma^2} (x - D),\;
              \frac{\sigma'^2 (\sigma^2 - \sigma'^2)}{\sigma^2} I \right),

    of first order, one evaluation a step. Exact for data that are a single point; for others the
    variance comes out too small with few steps. With `TimeSpacing()` and all steps of a `DDPM` it
    is that paper's.

    :param num_steps: number of steps.
    :param spacing: where the noise levels lie.
    """

    def step(self, denoiser, x, sigma, sigma_next, noise):
        """See :meth:`ReverseSampler.step`."""
        return _step(denoiser, x, sigma, sigma_next, noise[0], 1.0)
