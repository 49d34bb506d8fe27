# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Layers of one unbatched picture, channels last, with the weights of a file."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from numpyro_scores.nn._convolution import convolve
from numpyro_scores.pretrained.tensors import Tensors

# What `act_fn` may be. torch's GELU is the exact one.
ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}


def _param(tensor: np.ndarray) -> nnx.Param:
    return nnx.Param(jnp.asarray(tensor))


class Conv(nnx.Module):
    """
    A convolution of a picture `(h, w, num_in) -> (h, w, num_out)`, computed in the dtype of the
    picture, with as many zeros round it as keep its shape.

    :param size: of the square kernel, odd.
    :param border: more zeros on each side, which make the picture larger.
    """

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        num_in: int,
        num_out: int,
        size: int = 3,
        *,
        border: int = 0,
    ):
        kernel = tensors.take(f"{name}.weight", (num_out, num_in, size, size))
        self.kernel = _param(kernel.transpose(2, 3, 1, 0))
        self.bias = _param(tensors.take(f"{name}.bias", (num_out,)))
        zeros = size // 2 + border
        self.padding = ((zeros, zeros), (zeros, zeros))

    def __call__(self, x: Array) -> Array:
        y = convolve(x[None], self.kernel[...].astype(x.dtype), self.padding)
        return y[0] + self.bias[...].astype(x.dtype)


class HalvingConv(nnx.Module):
    """
    Every other pixel of a convolution with a kernel of 3 x 3, `(h, w, num_in) -> (h / 2, w / 2,
    num_out)`. Each square of four pixels counts as one with four times the channels, which a kernel
    of 2 x 2 sees: such a convolution has derivatives that are fast in a loop, too.

    :param before: zeros above and on the left, 0 or 1.
    """

    def __init__(self, tensors: Tensors, name: str, num_in: int, num_out: int, *, before: int):
        kernel = tensors.take(f"{name}.weight", (num_out, num_in, 3, 3))
        self.kernel = _param(kernel.transpose(2, 3, 1, 0))
        self.bias = _param(tensors.take(f"{name}.bias", (num_out,)))
        self.before = before

    def __call__(self, x: Array) -> Array:
        zeros = (self.before, 2 - self.before)
        pixels = jnp.pad(x, (zeros, zeros, (0, 0)))[..., None]
        kernel = jnp.pad(self.kernel[...].astype(x.dtype), ((0, 1), (0, 1), (0, 0), (0, 0)))
        y = convolve(_squares(pixels)[None, ..., 0], _squares(kernel), ((0, 0), (0, 0)))
        return y[0] + self.bias[...].astype(x.dtype)


def _squares(x: Array) -> Array:
    """Shape `(h, w, c, o)`, as `(h / 2, w / 2, 4 c, o)`: the four pixels of a square together."""
    h, w, c, o = x.shape
    parts = x.reshape(h // 2, 2, w // 2, 2, c, o).transpose(0, 2, 1, 3, 4, 5)
    return parts.reshape(h // 2, w // 2, 4 * c, o)


class Dense(nnx.Module):
    """`x @ kernel + bias` along the last axis, computed in the dtype of `x`."""

    def __init__(self, tensors: Tensors, name: str, num_in: int, num_out: int):
        self.kernel = _param(tensors.take(f"{name}.weight", (num_out, num_in)).T)
        self.bias = _param(tensors.take(f"{name}.bias", (num_out,)))

    def __call__(self, x: Array) -> Array:
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class GroupNorm(nnx.Module):
    """
    Each of `num_groups` groups of channels is centred and scaled to unit variance over the picture
    (Wu & He 2018), in `float32` at least.

    :raises ValueError: if the channels don't fall into so many groups.
    """

    def __init__(self, tensors: Tensors, name: str, channels: int, num_groups: int, eps: float):
        if num_groups < 1 or channels % num_groups:
            raise ValueError(
                f"{name} normalises {channels} channels, which don't fall into {num_groups} "
                "groups: see norm_num_groups and block_out_channels in config.json."
            )
        self.scale = _param(tensors.take(f"{name}.weight", (channels,)))
        self.bias = _param(tensors.take(f"{name}.bias", (channels,)))
        self.num_groups = num_groups
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        scale, bias = self.scale[...].astype(dtype), self.bias[...].astype(dtype)
        pixels = x.astype(dtype).reshape(-1, x.shape[-1])
        # First over the pixels, channel by channel: this way a processor adds whole rows.
        centred = pixels - self._of_groups(pixels.mean(0))
        variance = self._of_groups((centred**2).mean(0))
        y = centred * (jax.lax.rsqrt(variance + self.eps) * scale) + bias
        return y.reshape(x.shape).astype(x.dtype)

    def _of_groups(self, means: Array) -> Array:
        """Means of channels as those of their groups, each channel with that of its own."""
        size = len(means) // self.num_groups
        return jnp.repeat(means.reshape(self.num_groups, size).mean(1), size)


class SelfAttention(nnx.Module):
    r"""
    :math:`x + \text{softmax}(q k^T / \sqrt{d})\, v` over all pixels, by heads of width `d`, divided
    by `output_scale` as a whole.

    :param head_dim: the width of a head; there are as many heads as fit into the channels.
    :param num_groups: groups of the norm before, or None for no norm.
    :raises ValueError: if a head is wider than the channels.
    """

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        channels: int,
        head_dim: int,
        *,
        num_groups: int | None,
        eps: float,
        output_scale: float = 1.0,
    ):
        self.num_heads = channels // head_dim
        if self.num_heads < 1:
            raise ValueError(
                f"{name} has {channels} channels, fewer than attention_head_dim = {head_dim}."
            )
        inner = self.num_heads * head_dim
        self.norm = nnx.data(None)
        if num_groups is not None:
            self.norm = GroupNorm(tensors, f"{name}.group_norm", channels, num_groups, eps)
        self.query = Dense(tensors, f"{name}.to_q", channels, inner)
        self.key = Dense(tensors, f"{name}.to_k", channels, inner)
        self.value = Dense(tensors, f"{name}.to_v", channels, inner)
        self.out = Dense(tensors, f"{name}.to_out.0", inner, channels)
        self.output_scale = output_scale

    def __call__(self, x: Array) -> Array:
        pixels = (x if self.norm is None else self.norm(x)).reshape(-1, x.shape[-1])
        query, key, value = (
            layer(pixels).reshape(len(pixels), self.num_heads, -1)
            for layer in (self.query, self.key, self.value)
        )
        mixed = attention(query, key, value)
        update = self.out(mixed.reshape(len(pixels), -1)).reshape(x.shape)
        return (x + update) / self.output_scale


def attention(query: Array, key: Array, value: Array) -> Array:
    r"""
    :math:`\text{softmax}(q k^T / \sqrt{d})\, v` by heads, all of shape `(pixels, heads, d)`.
    """
    logits = jnp.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[-1])
    # A sum over thousands of pixels needs more digits than bfloat16 has.
    weights = jax.nn.softmax(logits.astype(jnp.promote_types(query.dtype, jnp.float32)))
    return jnp.einsum("hqk,khd->qhd", weights.astype(query.dtype), value)
