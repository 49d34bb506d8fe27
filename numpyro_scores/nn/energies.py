# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from numpyro_scores._validation import as_event_shape, check_count, check_event
from numpyro_scores.nn._convolution import convolution
from numpyro_scores.nn._images import as_image_shape, with_channels
from numpyro_scores.nn.readouts import inner_product

Readout = Callable[[Array, Array], Array]


class MLPEnergy(nnx.Module):
    r"""
    The energy :math:`E(x) = x \cdot f(x)` of a multilayer perceptron `f` with smooth activations
    (SiLU), so that its score and the derivatives of its score exist. A linear `f` is a Gaussian.
    With another readout :math:`|x - f(x)|^2` or :math:`|f(x)|^2`.

    :param event_shape: shape of a point; an integer `d` means `(d,)`.
    :param rngs: random streams of the initial weights, `nnx.Rngs(seed)`.
    :param hidden_features: width.
    :param num_layers: number of hidden layers.
    :param readout: :func:`~numpyro_scores.nn.inner_product`,
        :func:`~numpyro_scores.nn.squared_error`, :func:`~numpyro_scores.nn.squared_norm`, or any
        function `(x, f) -> ()` of a point and the network's output, both of shape `event_shape`.
    """

    def __init__(
        self,
        event_shape: Sequence[int] | int,
        *,
        rngs: nnx.Rngs,
        hidden_features: int = 128,
        num_layers: int = 3,
        readout: Readout = inner_product,
    ):
        check_count("hidden_features", hidden_features)
        check_count("num_layers", num_layers)
        check_readout(readout)
        self.event_shape = as_event_shape(event_shape)
        self.readout = readout
        size = math.prod(self.event_shape)
        widths = [size, *[hidden_features] * num_layers, size]
        self.layers = nnx.List(
            [nnx.Linear(n_in, n_out, rngs=rngs) for n_in, n_out in itertools.pairwise(widths)]
        )

    def __call__(self, x: Array) -> Array:
        r"""
        :param x: one point, shape `event_shape`.
        :return: its energy, shape `()`, without unit: :math:`-\log p` up to a constant.
        :raises ValueError: if `x` has another shape.
        """
        check_event("MLPEnergy", x, self.event_shape)
        *hidden, last = self.layers
        h = x.ravel()
        for layer in hidden:
            h = jax.nn.silu(layer(h))
        return self.readout(x, last(h).reshape(x.shape))


class ConvEnergy(nnx.Module):
    r"""
    The energy :math:`E(x) = x \cdot f(x)` of a picture, `f` a stack of convolutions with smooth
    activations (SiLU): the same law everywhere in the picture, edges aside. An entry of `f` sees
    `(num_layers + 1) * (kernel_size - 1) + 1` pixels in height and width.

    :param event_shape: shape of a picture, `(h, w)` or `(h, w, c)`.
    :param rngs: random streams of the initial weights, `nnx.Rngs(seed)`.
    :param hidden_features: width.
    :param num_layers: number of hidden layers.
    :param kernel_size: height and width of the kernels, in pixels.
    :param readout: as of :class:`MLPEnergy`.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        rngs: nnx.Rngs,
        hidden_features: int = 32,
        num_layers: int = 4,
        kernel_size: int = 3,
        readout: Readout = inner_product,
    ):
        check_count("hidden_features", hidden_features)
        check_count("num_layers", num_layers)
        check_count("kernel_size", kernel_size)
        check_readout(readout)
        self.event_shape = as_image_shape("ConvEnergy", event_shape)
        self.readout = readout
        channels = with_channels(self.event_shape)[-1]
        widths = [channels, *[hidden_features] * num_layers, channels]
        self.layers = nnx.List(
            [
                convolution(n_in, n_out, kernel_size, rngs=rngs)
                for n_in, n_out in itertools.pairwise(widths)
            ]
        )

    def __call__(self, x: Array) -> Array:
        r"""
        :param x: one picture, shape `event_shape`.
        :return: its energy, shape `()`, without unit: :math:`-\log p` up to a constant.
        :raises ValueError: if `x` has another shape.
        """
        check_event("ConvEnergy", x, self.event_shape)
        *hidden, last = self.layers
        h = jnp.reshape(x, with_channels(self.event_shape))
        for layer in hidden:
            h = jax.nn.silu(layer(h))
        return self.readout(x, last(h).reshape(x.shape))


def check_readout(readout: Any) -> None:
    """Raise unless a readout can be called."""
    if not callable(readout):
        raise TypeError(
            "readout must be a function (x, f) -> (), such as nn.inner_product, nn.squared_error "
            f"or nn.squared_norm, got {readout!r}."
        )
