# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Convolutions whose output for a pixel sees the pixels before it only."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from numpyro_scores._validation import check_count, check_event
from numpyro_scores.nn._convolution import convolve
from numpyro_scores.nn._images import as_image_shape, with_channels


class PixelCNN(nnx.Module):
    r"""
    Masked convolutions (van den Oord et al. 2016, "Conditional image generation with PixelCNN
    decoders", without its gates): the same law everywhere in the picture, edges aside. One stack
    sees the rows above a pixel, another the pixels to its left and what the first has seen, so that
    nothing before a pixel is out of sight. Of several channels each sees those before it in the
    same pixel. For `numpyro_scores.distributions.AutoregressivePrior`::

        prior = AutoregressivePrior(
            nn.PixelCNN((28, 28), rngs=rngs), (28, 28), conditional=dist.BernoulliLogits
        )

    An output sees `num_layers * (kernel_size // 2)` pixels to each side and above.

    :param event_shape: shape of a picture, `(h, w)` or `(h, w, c)`.
    :param rngs: random streams of the initial weights, `nnx.Rngs(seed)`.
    :param num_outputs: numbers for each entry: 1 for the logit of a binary one, 2 for mean and log
        scale of a real one.
    :param hidden_features: width of each stack, at least the number of channels.
    :param num_layers: number of convolutions in each stack.
    :param kernel_size: height and width of a kernel before its mask, odd, at least 3.
    :raises ValueError: if a number is out of its range, or the shape is not that of a picture.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        rngs: nnx.Rngs,
        num_outputs: int = 1,
        hidden_features: int = 32,
        num_layers: int = 4,
        kernel_size: int = 3,
    ):
        for name, value in (
            ("num_outputs", num_outputs),
            ("hidden_features", hidden_features),
            ("num_layers", num_layers),
            ("kernel_size", kernel_size),
        ):
            check_count(name, value)
        if kernel_size % 2 == 0 or kernel_size < 3:
            raise ValueError(f"kernel_size must be odd and at least 3, got {kernel_size}.")
        self.event_shape = as_image_shape("PixelCNN", event_shape)
        self.num_outputs = num_outputs
        channels = with_channels(self.event_shape)[-1]
        if hidden_features < channels:
            raise ValueError(
                f"hidden_features must be at least the number of channels, {channels}, got "
                f"{hidden_features}."
            )
        width, sizes = hidden_features, [channels] + [hidden_features] * (num_layers - 1)
        self.above = nnx.List(
            [nnx.Conv(n, width, (kernel_size, kernel_size), rngs=rngs) for n in sizes]
        )
        self.left = nnx.List([nnx.Conv(n, width, (1, kernel_size), rngs=rngs) for n in sizes])
        self.down = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in sizes])
        self.readout = nnx.Linear(width, channels * num_outputs, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """
        :param x: one picture, shape `event_shape`.
        :return: shape `(*event_shape, num_outputs)`.
        """
        check_event("PixelCNN", x, self.event_shape)
        shape = with_channels(self.event_shape)
        # The channel whose place in the order a feature has.
        order = np.arange(shape[-1])
        hidden = np.arange(self.readout.in_features) % shape[-1]
        above = left = jnp.reshape(x, (1, *shape))
        for i, (rows, columns, down) in enumerate(
            zip(self.above, self.left, self.down, strict=True)
        ):
            is_first = i == 0
            v = jax.nn.silu(_masked(rows, above, _rows_before(rows, is_first)))
            mask = _columns_before(columns, order, hidden, is_first)
            h = jax.nn.silu(_masked(columns, left, mask) + down(v))
            above, left = (v, h) if is_first else (above + v, left + h)
            order = hidden
        outputs = np.repeat(np.arange(shape[-1]), self.num_outputs)
        kernel = jnp.where(hidden[:, None] <= outputs, self.readout.kernel[...], 0.0)
        assert self.readout.bias is not None
        return (left @ kernel + self.readout.bias[...]).reshape(*self.event_shape, self.num_outputs)


def _rows_before(layer: nnx.Conv, is_first: bool) -> np.ndarray:
    """Of a picture the rows above; of features, which have seen these only, the own row too."""
    rows = np.arange(layer.kernel_size[0])
    middle = len(rows) // 2
    return (rows < middle if is_first else rows <= middle)[:, None, None, None]


def _columns_before(
    layer: nnx.Conv, order_in: np.ndarray, order_out: np.ndarray, is_first: bool
) -> np.ndarray:
    """Entries to the left, and in the own place those before in the order of channels."""
    columns = np.arange(layer.kernel_size[1])[:, None, None]
    middle = len(columns) // 2
    before, after = order_in[:, None], order_out[None]
    in_place = before < after if is_first else before <= after
    return ((columns < middle) | ((columns == middle) & in_place))[None]


def _masked(layer: nnx.Conv, x: Array, mask: np.ndarray) -> Array:
    height, width = (size // 2 for size in layer.kernel_size)
    kernel = jnp.where(mask, layer.kernel[...], 0.0)
    dtype = jnp.result_type(x, kernel)
    padding = ((height, height), (width, width))
    assert layer.bias is not None
    return convolve(x.astype(dtype), kernel.astype(dtype), padding) + layer.bias[...]
