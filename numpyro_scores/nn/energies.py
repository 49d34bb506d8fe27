# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from numpyro_scores._validation import as_event_shape, check_count, check_event


class MLPEnergy(nnx.Module):
    r"""
    The energy :math:`E(x) = x \cdot f(x)` of a multilayer perceptron `f` with smooth activations
    (SiLU), so that its score and the derivatives of its score exist. A linear `f` is a Gaussian.

    :param event_shape: shape of a point; an integer `d` means `(d,)`.
    :param rngs: random streams of the initial weights, `nnx.Rngs(seed)`.
    :param hidden_features: width.
    :param num_layers: number of hidden layers.
    """

    def __init__(
        self,
        event_shape: Sequence[int] | int,
        *,
        rngs: nnx.Rngs,
        hidden_features: int = 128,
        num_layers: int = 3,
    ):
        check_count("hidden_features", hidden_features)
        check_count("num_layers", num_layers)
        self.event_shape = as_event_shape(event_shape)
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
        *hidden, readout = self.layers
        h = x.ravel()
        for layer in hidden:
            h = jax.nn.silu(layer(h))
        return jnp.vdot(x, readout(h))
