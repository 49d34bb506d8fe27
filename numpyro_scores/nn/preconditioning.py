# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Preconditioning: the network of a denoiser sees and returns numbers of unit size."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from numpyro_scores._validation import check_positive


class Preconditioned(nnx.Module):
    r"""
    The denoiser

    .. math::
        D(x, \sigma) = c_{\text{skip}} x + c_{\text{out}} F(c_{\text{in}} x, c_{\text{noise}}),
        \quad
        c_{\text{skip}} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2},
        c_{\text{out}} = \frac{\sigma \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}},
        c_{\text{in}} = \frac1{\sqrt{\sigma^2 + \sigma_d^2}},
        c_{\text{noise}} = \tfrac14 \ln \sigma

    of a network `F` (Karras et al. 2022, table 1). For centred data of standard deviation
    :math:`\sigma_d`, the input of `F` and the target that it is trained on have unit variance, and
    :math:`c_{\text{out}}` is as small as it can be; `F = 0` is the best linear denoiser.

    A point in half precision goes through `F` in half precision; the rest of the formula is in
    `float32`, or the noise of a small :math:`\sigma` would drown in the rounding of `x`.

    :param network: `F(x, c_noise, **kwargs) -> x.shape`, on one unbatched point.
    :param sigma_data: standard deviation :math:`\sigma_d` of the data, in its own units.
    """

    def __init__(self, network: Callable[..., Array], sigma_data: float = 1.0):
        check_positive("sigma_data", sigma_data)
        self.network = network
        self.sigma_data = sigma_data

    def __call__(self, x: Array, sigma: Array, **kwargs: Any) -> Array:
        """
        :param x: one noisy point, shape `event_shape`.
        :param sigma: its noise level, positive, shape `()`.
        :param kwargs: for the network, such as a label.
        :return: the denoised point, shape `event_shape`.
        :raises ValueError: if `sigma` is not a scalar.
        """
        x, sigma, scaled, c_noise = scaled_input("A denoiser", x, sigma, self.sigma_data)
        variance = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / variance
        c_out = sigma * self.sigma_data / jnp.sqrt(variance)
        return c_skip * x + c_out * self.network(scaled, c_noise, **kwargs)


def scaled_input(
    name: str, x: Array, sigma: Array, sigma_data: float
) -> tuple[Array, Array, Array, Array]:
    r"""
    A point and its noise level in at least `float32`, and what the network gets: the point, scaled
    to unit variance and in its own precision, and :math:`c_{\text{noise}} = \tfrac14 \ln \sigma`.

    :raises ValueError: if `sigma` is not a scalar.
    """
    if jnp.shape(sigma) != ():
        raise ValueError(
            f"{name} takes one point and its noise level of shape (), got a noise level of shape "
            f"{jnp.shape(sigma)}. For a batch use jax.vmap over both."
        )
    dtype = jnp.result_type(x)
    x = jnp.asarray(x, jnp.promote_types(dtype, jnp.float32))
    sigma = sigma * jnp.ones((), x.dtype)
    c_in = 1 / jnp.sqrt(sigma**2 + sigma_data**2)
    return x, sigma, (c_in * x).astype(dtype), jnp.log(sigma) / 4
