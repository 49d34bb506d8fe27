# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Denoisers."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from numpyro_scores._validation import as_event_shape, check_count, check_event
from numpyro_scores.nn.preconditioning import Preconditioned

NUM_FREQUENCIES = 16


def fourier_features(c_noise: Array) -> Array:
    r"""
    :math:`\cos` and :math:`\sin` of :math:`2 \pi f c_{\text{noise}}`, with frequencies from 1/8 to
    4: periods from 8, longer than the whole range of :math:`\tfrac14 \ln \sigma`, to 1/4, which is
    a factor `e` in the noise level.

    :return: shape `(2 * NUM_FREQUENCIES,)`.
    """
    frequencies = jnp.geomspace(1 / 8, 4, NUM_FREQUENCIES).astype(c_noise.dtype)
    angle = 2 * jnp.pi * frequencies * c_noise
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)])


class _Block(nnx.Module):
    """A residual block that the noise level shifts."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(features, rngs=rngs)
        self.linear_in = nnx.Linear(features, features, rngs=rngs)
        self.linear_noise = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.linear_out = nnx.Linear(features, features, rngs=rngs)

    def __call__(self, h: Array, embedding: Array) -> Array:
        update = self.linear_in(self.norm(h)) + self.linear_noise(embedding)
        return h + self.linear_out(jax.nn.silu(update))


class _ResidualMLP(nnx.Module):
    """
    The network `F(x, c_noise)` of :class:`MLPDenoiser`: `size` numbers in, and as many out or
    `num_outputs`.
    """

    def __init__(
        self,
        size: int,
        features: int,
        num_layers: int,
        rngs: nnx.Rngs,
        *,
        num_outputs: int | None = None,
        # Zero, so that training starts from the best linear denoiser.
        kernel_init: nnx.Initializer = nnx.initializers.zeros_init(),
    ):
        self.embed = nnx.Linear(2 * NUM_FREQUENCIES, features, rngs=rngs)
        self.linear_in = nnx.Linear(size, features, rngs=rngs)
        self.blocks = nnx.List([_Block(features, rngs) for _ in range(num_layers)])
        self.norm = nnx.LayerNorm(features, rngs=rngs)
        num_outputs = size if num_outputs is None else num_outputs
        self.linear_out = nnx.Linear(features, num_outputs, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: Array, c_noise: Array) -> Array:
        return self.outputs(x, c_noise).reshape(x.shape)

    def outputs(self, x: Array, c_noise: Array) -> Array:
        """Shape `(num_outputs,)`."""
        embedding = jax.nn.silu(self.embed(fourier_features(c_noise).astype(x.dtype)))
        h = self.linear_in(x.ravel())
        for block in self.blocks:
            h = block(h, embedding)
        return self.linear_out(self.norm(h))


class OfVectors(nnx.Module):
    """The settings of a perceptron of noisy points; a subclass says what its output means."""

    def __init__(
        self,
        event_shape: Sequence[int] | int,
        *,
        rngs: nnx.Rngs,
        hidden_features: int = 256,
        num_layers: int = 4,
        sigma_data: float = 1.0,
    ):
        check_count("hidden_features", hidden_features)
        check_count("num_layers", num_layers)
        self.event_shape = as_event_shape(event_shape)
        size = math.prod(self.event_shape)
        make_network = partial(_ResidualMLP, size, hidden_features, num_layers, rngs)
        self._hold(make_network, sigma_data)

    def _hold(self, make_network: Callable[..., Any], sigma_data: float) -> None:
        """Keep a network, made with the options of its output."""
        raise NotImplementedError


class MLPDenoiser(OfVectors):
    r"""
    A residual multilayer perceptron as denoiser, `D(x, sigma) -> x.shape`, with the preconditioning
    of :class:`Preconditioned`: for vectors and small images. Before training it is the best linear
    denoiser :math:`x \sigma_d^2 / (\sigma^2 + \sigma_d^2)`.

    :param event_shape: shape of a point; an integer `d` means `(d,)`.
    :param rngs: random streams of the initial weights, `nnx.Rngs(seed)`.
    :param hidden_features: width.
    :param num_layers: number of residual blocks, of two layers each.
    :param sigma_data: standard deviation of the data, in its own units.
    """

    def _hold(self, make_network: Callable[..., Any], sigma_data: float) -> None:
        self.denoiser = Preconditioned(make_network(), sigma_data)

    @property
    def sigma_data(self) -> float:
        return self.denoiser.sigma_data

    def __call__(self, x: Array, sigma: Array) -> Array:
        """
        :param x: one noisy point, shape `event_shape`.
        :param sigma: its noise level, positive, shape `()`.
        :return: the denoised point, shape `event_shape`.
        :raises ValueError: if a shape is another.
        """
        check_event("MLPDenoiser", x, self.event_shape)
        return self.denoiser(x, sigma)
