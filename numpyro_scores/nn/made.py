# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A network whose output for an entry sees the entries before it only."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from numpyro_scores._validation import as_event_shape, check_count, check_event


class MADE(nnx.Module):
    r"""
    A multilayer perceptron with masked weights (Germain et al. 2015, "MADE: masked autoencoder for
    distribution estimation"). Entry `i` of `d` has the degree `i`, hidden units
    have the degrees 1 to `d - 1` in turn; a unit sees those of its own degree and of lower ones in
    the layer before it, and an output those of lower ones. For
    `numpyro_scores.distributions.AutoregressivePrior`.

    :param event_shape: shape of a point; an integer `d` means `(d,)`.
    :param rngs: random streams of the initial weights, `nnx.Rngs(seed)`.
    :param num_outputs: numbers for each entry: 1 for the logit of a binary one, 2 for mean and log
        scale of a real one.
    :param hidden_features: width; below `d - 1` some entries are seen by no unit.
    :param num_layers: number of hidden layers.
    """

    def __init__(
        self,
        event_shape: Sequence[int] | int,
        *,
        rngs: nnx.Rngs,
        num_outputs: int = 1,
        hidden_features: int = 128,
        num_layers: int = 2,
    ):
        for name, value in (
            ("num_outputs", num_outputs),
            ("hidden_features", hidden_features),
            ("num_layers", num_layers),
        ):
            check_count(name, value)
        self.event_shape = as_event_shape(event_shape)
        self.num_outputs = num_outputs
        d = math.prod(self.event_shape)
        widths = [d, *[hidden_features] * num_layers, d * num_outputs]
        self.layers = nnx.List(
            [nnx.Linear(n_in, n_out, rngs=rngs) for n_in, n_out in itertools.pairwise(widths)]
        )

    def __call__(self, x: Array) -> Array:
        """
        :param x: one point, shape `event_shape`.
        :return: shape `(*event_shape, num_outputs)`.
        """
        check_event("MADE", x, self.event_shape)
        d = math.prod(self.event_shape)
        h, degrees = jnp.ravel(x), np.arange(1, d + 1)
        for layer in self.layers[:-1]:
            hidden = np.arange(layer.out_features) % max(1, d - 1) + min(1, d - 1)
            h = jax.nn.silu(_masked(layer, h, degrees[:, None] <= hidden))
            degrees = hidden
        outputs = np.repeat(np.arange(1, d + 1), self.num_outputs)
        h = _masked(self.layers[-1], h, degrees[:, None] < outputs)
        return h.reshape(*self.event_shape, self.num_outputs)


def _masked(layer: nnx.Linear, x: Array, mask: np.ndarray) -> Array:
    assert layer.bias is not None
    return x @ jnp.where(mask, layer.kernel[...], 0.0) + layer.bias[...]
