# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The residual block of both networks, with attention and a change of size."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from numpyro_scores.pretrained import layers
from numpyro_scores.pretrained.layers import Conv, Dense, GroupNorm
from numpyro_scores.pretrained.resampling import (
    average_down,
    fir_down,
    fir_down_within,
    fir_up,
    nearest_up,
)
from numpyro_scores.pretrained.tensors import Tensors


class BlockStyle(NamedTuple):
    """
    In what the blocks of the two networks differ.

    :param num_emb: how many numbers embed the time.
    :param head_dim: the width of an attention head, or None for one head.
    :param scale: of what comes out of a block, and of its attention.
    :param eps: of the norms.
    :param scale_and_shift: whether the time scales and shifts after a norm, or is added before it.
    :param project: whether a change of size comes with a 1 x 1 convolution beside the block.
    :param taps: the filter of a change of size.
    """

    num_emb: int
    head_dim: int | None
    scale: float
    eps: float
    scale_and_shift: bool
    project: bool
    taps: tuple[int, ...]

    def up(self, x: Array) -> Array:
        """Twice the size."""
        return nearest_up(x) if len(self.taps) == 2 else fir_up(x)

    def down(self, x: Array) -> Array:
        """Half the size."""
        return average_down(x) if len(self.taps) == 2 else fir_down(x)

    def down_within(self, x: Array) -> Array:
        """Half the size, of a picture that has a border for the filter."""
        return average_down(x) if len(self.taps) == 2 else fir_down_within(x)

    def take_filter(self, tensors: Tensors, name: str) -> None:
        """The filter that a file has beside each layer that changes the size."""
        taps = np.asarray(self.taps, np.float32)
        square = np.outer(taps, taps) / taps.sum() ** 2
        tensors.take_constant(f"{name}.resample_filter", square[None, None])


def num_groups(channels: int) -> int:
    """Of all norms: four channels in a group, 32 groups at most."""
    return min(channels // 4, 32)


class SelfAttention(nnx.Module):
    r"""
    :math:`s\,(x + P\, \text{softmax}(q k^T / \sqrt d)\, v)` over all pixels, with one 1 x 1
    convolution for all of `q`, `k` and `v`.

    :param name: the name of the block that it is of.
    """

    def __init__(
        self, tensors: Tensors, name: str, channels: int, num_heads: int, style: BlockStyle
    ):
        self.num_heads, self.scale = num_heads, style.scale
        self.norm = GroupNorm(tensors, f"{name}.norm2", channels, num_groups(channels), style.eps)
        self.qkv = Conv(tensors, f"{name}.qkv", channels, 3 * channels, 1)
        self.proj = Conv(tensors, f"{name}.proj", channels, channels, 1)

    def __call__(self, x: Array) -> Array:
        # Of an output channel, the head is the slowest index, and which of q, k, v it is the last.
        qkv = self.qkv(self.norm(x)).reshape(math.prod(x.shape[:2]), self.num_heads, -1, 3)
        mixed = layers.attention(*(qkv[..., i] for i in range(3)))
        return (x + self.proj(mixed.reshape(x.shape))) * self.scale


class UNetBlock(nnx.Module):
    r"""
    :math:`A(s\,(S(R x) + C_1\, a(N_1(C_0 R\, a(N_0 x) + T e))))`: norms `N`, convolutions `C`, the
    SiLU `a`, the embedding `e` of the time, a change of size `R` or none, a 1 x 1 convolution `S`
    or none, and :class:`SelfAttention` `A` or none. In ADM the embedding scales and shifts what
    comes out of :math:`N_1`.

    :param resample: `style.up`, `style.down` or None.
    :param attention: whether there is attention.
    """

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        num_in: int,
        num_out: int,
        style: BlockStyle,
        *,
        resample: Callable[[Array], Array] | None = None,
        attention: bool = False,
    ):
        self.style, self.resample = style, resample
        eps = style.eps
        self.norm0 = GroupNorm(tensors, f"{name}.norm0", num_in, num_groups(num_in), eps)
        self.conv0 = Conv(tensors, f"{name}.conv0", num_in, num_out)
        num_shifts = 2 * num_out if style.scale_and_shift else num_out
        self.affine = Dense(tensors, f"{name}.affine", style.num_emb, num_shifts)
        self.norm1 = GroupNorm(tensors, f"{name}.norm1", num_out, num_groups(num_out), eps)
        self.conv1 = Conv(tensors, f"{name}.conv1", num_out, num_out)
        self.skip = nnx.data(None)
        if num_in != num_out or (resample is not None and style.project):
            self.skip = Conv(tensors, f"{name}.skip", num_in, num_out, 1)
        if resample is not None:
            style.take_filter(tensors, f"{name}.conv0")
            style.take_filter(tensors, f"{name}.skip")
        self.attention = nnx.data(None)
        num_heads = 1 if style.head_dim is None else num_out // style.head_dim
        # ADM's rule gives no head to fewer channels than a head has.
        if attention and num_heads:
            self.attention = SelfAttention(tensors, name, num_out, num_heads, style)

    def __call__(self, x: Array, embedding: Array) -> Array:
        h = jax.nn.silu(self.norm0(x))
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv0(h)
        shift = self.affine(embedding)
        if self.style.scale_and_shift:
            scale, shift = jnp.split(shift, 2)
            h = shift + self.norm1(h) * (1 + scale)
        else:
            h = self.norm1(h + shift)
        h = self.conv1(jax.nn.silu(h))
        x = (h + (x if self.skip is None else self.skip(x))) * self.style.scale
        return x if self.attention is None else self.attention(x)
