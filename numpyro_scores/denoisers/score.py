# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
The score at a noise level by a denoiser: :math:`\nabla \log p_\sigma(x) = (\mathbb E[x_0 \mid x] -
x) / \sigma^2` (Robbins 1956; Miyasawa 1961; Efron 2011, "Tweedie's formula and selection bias").
"""

from typing import Any

import jax
from jax import Array

from numpyro_scores._callables import Denoiser
from numpyro_scores.denoisers.of_energy import DenoiserOfEnergy


def score_of_denoised(denoised: Array, x: Array, sigma: Any) -> Array:
    r"""
    :math:`(D - x) / \sigma^2`.

    :param denoised: the denoised point `D`, the shape of `x`.
    :param x: one noisy point.
    :param sigma: its noise level, shape `()`.
    """
    return (denoised - x) / sigma**2


def score_by_denoiser(denoiser: Denoiser, x: Array, sigma: Any) -> Array:
    r"""
    :math:`(D(x, \sigma) - x) / \sigma^2`, which of an energy's denoiser is :math:`-\nabla U`.

    :param denoiser: of one unbatched point.
    :param x: one noisy point.
    :param sigma: its noise level, shape `()`.
    """
    if isinstance(denoiser, DenoiserOfEnergy):  # not by way of the denoiser, to lose no digits
        return -jax.grad(denoiser.energy)(x, sigma)
    return score_of_denoised(denoiser(x, sigma), x, sigma)
