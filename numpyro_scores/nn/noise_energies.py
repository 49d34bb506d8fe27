# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Energies of every noise level, :math:`U(x, \sigma) = -\log p_\sigma(x)`, of which the Gaussian that
:math:`p_\sigma` becomes at large :math:`\sigma` is a part.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from numpyro_scores._validation import check_event, check_positive
from numpyro_scores.nn._images import with_channels
from numpyro_scores.nn.denoisers import OfVectors
from numpyro_scores.nn.preconditioning import scaled_input
from numpyro_scores.nn.unet import OfPictures

# Of the outputs F at the start, beside those of unit variance. Not zero: at F = 0 the gradient of
# |F|^2 vanishes, and it would stay there.
FIRST_SIZE = 0.1


def last_output_zero(key: Array, shape: Sequence[int], dtype=jnp.float32, **options) -> Array:
    """Initial weights of `(F, V)`: small ones of `F`, and none of `V`."""
    kernel = FIRST_SIZE * nnx.initializers.lecun_normal()(key, shape, dtype, **options)
    return kernel.at[..., -1].set(0)


def readout(x: Array, sigma: Array, sigma_data: float, f: Array, v: Array) -> Array:
    r"""
    With :math:`t = \sigma^2`, :math:`s = \sigma_{\text{data}}` and :math:`c = s^2 / (s^2 + t)`:

    .. math::
        U(x, \sigma) = \frac{|x|^2}{2 (s^2 + t)} + \frac d2 \ln 2 \pi (s^2 + t)
        + \frac c2 |F|^2 + \sqrt c\, V.

    The first two terms are :math:`-\log N(x; 0, (s^2 + t) I)`. For :math:`F' = \sqrt c F` the third
    completes the first to :math:`|x - D|^2 / 2t + |D|^2 / 2 s^2` with the preconditioned output
    :math:`D = c x + s \sigma F' / \sqrt{s^2 + t}` of :class:`~numpyro_scores.nn.Preconditioned`:
    the cross terms cancel. Written so, nothing is left that could lose digits. What the data are
    besides a Gaussian vanishes as :math:`\sigma \to \infty`, the mean like :math:`s / \sigma` and
    the covariance like its square; so do the factors of `V` and :math:`|F|^2`.

    :param f: output of a network of :math:`x / \sqrt{s^2 + t}`, of any shape.
    :param v: another output, shape `()`.
    """
    variance = sigma**2 + sigma_data**2
    c = sigma_data**2 / variance
    gaussian = jnp.sum(x**2) / variance + x.size * jnp.log(2 * jnp.pi * variance)
    return (gaussian + c * jnp.sum(f**2)) / 2 + jnp.sqrt(c) * v


class MLPNoiseEnergy(OfVectors):
    r"""
    An energy of every noise level, :math:`U(x, \sigma) = -\log p_\sigma(x)`, of a residual
    multilayer perceptron: for vectors and small images. With :math:`c = \sigma_d^2 / (\sigma^2 +
    \sigma_d^2)`,

    .. math::
        U(x, \sigma) = -\log N(x; 0, (\sigma_d^2 + \sigma^2) I)
        + \tfrac c2 |F|^2 + \sqrt c\, V,
        \quad
        (F, V) = f\left( \tfrac x{\sqrt{\sigma^2 + \sigma_d^2}}, \tfrac14 \ln \sigma \right),

    so that :math:`e^{-U}` is a normalised Gaussian at large :math:`\sigma` whatever the weights
    are; :class:`~numpyro_scores.objectives.DualScoreMatching` learns the rest from there down. Its
    denoiser :math:`x - \sigma^2 \nabla U` is the gradient of a potential.

    Points in half precision go through the network in half precision; the rest is in `float32`.

    :param event_shape: shape of a point; an integer `d` means `(d,)`.
    :param rngs: random streams of the initial weights, `nnx.Rngs(seed)`.
    :param hidden_features: width.
    :param num_layers: number of residual blocks, of two layers each.
    :param sigma_data: standard deviation of the data, which should be centred, in its own units.
    """

    def _hold(self, make_network: Callable[..., Any], sigma_data: float) -> None:
        check_positive("sigma_data", sigma_data)
        self.sigma_data = sigma_data
        num_outputs = math.prod(self.event_shape) + 1
        self.network = make_network(num_outputs=num_outputs, kernel_init=last_output_zero)

    def __call__(self, x: Array, sigma: Array) -> Array:
        r"""
        :param x: one noisy point, shape `event_shape`.
        :param sigma: its noise level, positive, shape `()`.
        :return: its energy :math:`-\log p_\sigma(x)`, shape `()`, in nats.
        :raises ValueError: if a shape is another.
        """
        check_event("MLPNoiseEnergy", x, self.event_shape)
        x, sigma, scaled, c_noise = scaled_input("An energy", x, sigma, self.sigma_data)
        outputs = self.network.outputs(scaled, c_noise).astype(x.dtype)
        return readout(x, sigma, self.sigma_data, outputs[:-1], outputs[-1])


class UNetNoiseEnergy(OfPictures):
    r"""
    An energy of every noise level, :math:`U(x, \sigma) = -\log p_\sigma(x)`, of pictures: the form
    of :class:`MLPNoiseEnergy` with the network of :class:`UNetDenoiser`, whose output has one
    channel more; the sum of that is `V`.

    Its arguments are those of :class:`UNetDenoiser`; the data should be centred.
    """

    def _hold(self, make_network: Callable[..., Any], sigma_data: float) -> None:
        check_positive("sigma_data", sigma_data)
        self.sigma_data = sigma_data
        num_outputs = with_channels(self.event_shape)[-1] + 1
        self.network = make_network(num_outputs=num_outputs, kernel_init=last_output_zero)

    def __call__(
        self, x: Array, sigma: Array, label: Array | None = None, *, key: Array | None = None
    ) -> Array:
        r"""
        :param x: one noisy picture, shape `event_shape`.
        :param sigma: its noise level, positive, shape `()`.
        :param label: its class, an integer in `[0, num_classes)`; None for any class.
        :param key: in training, decides whether the label is dropped, as if it were None; without
            a key it never is.
        :return: its energy :math:`-\log p_\sigma(x)`, shape `()`, in nats.
        :raises ValueError: if a shape is another, or there is no such label.
        """
        self._check(x, label)
        x, sigma, scaled, c_noise = scaled_input("An energy", x, sigma, self.sigma_data)
        outputs = self.network.outputs(scaled, c_noise, label, key).astype(x.dtype)
        return readout(x, sigma, self.sigma_data, outputs[..., :-1], jnp.sum(outputs[..., -1]))
