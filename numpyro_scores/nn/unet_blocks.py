# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a U-Net is built of."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from numpyro_scores.nn._convolution import convolution

ZEROS = nnx.initializers.zeros_init()


class GroupNorm(nnx.Module):
    """
    Group normalisation (Wu & He 2018) of one point, shape `(*positions, features)`, in groups of
    about four features: a lone one that is the same everywhere would be blown up. (Flax's takes the
    first axis for that of a batch, and takes a fifth longer in a step of training on a CPU.)
    """

    def __init__(self, features: int):
        self.num_groups = math.gcd(features, max(1, features // 4))
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, h: Array) -> Array:
        groups = h.reshape(-1, self.num_groups, h.shape[-1] // self.num_groups)
        groups = groups.astype(jnp.promote_types(h.dtype, jnp.float32))
        groups -= jnp.mean(groups, axis=(0, 2), keepdims=True)
        groups *= jax.lax.rsqrt(jnp.mean(groups**2, axis=(0, 2), keepdims=True) + 1e-5)
        return groups.reshape(h.shape).astype(h.dtype) * self.scale[...] + self.bias[...]


class _ResidualBlock(nnx.Module):
    """Two convolutions, between which the embedding scales and shifts; at first the identity."""

    def __init__(self, features_in: int, features: int, num_embedded: int, rngs: nnx.Rngs):
        self.norm_in = GroupNorm(features_in)
        self.conv_in = convolution(features_in, features, 3, rngs=rngs)
        self.embed = nnx.Linear(num_embedded, 2 * features, rngs=rngs)
        self.norm_out = GroupNorm(features)
        self.conv_out = convolution(features, features, 3, kernel_init=ZEROS, rngs=rngs)
        changes = features_in != features
        self.skip = nnx.Linear(features_in, features, rngs=rngs) if changes else None

    def __call__(self, h: Array, embedding: Array) -> Array:
        scale, shift = jnp.split(self.embed(embedding), 2)
        update = self.conv_in(jax.nn.silu(self.norm_in(h)))
        update = self.conv_out(jax.nn.silu((1 + scale) * self.norm_out(update) + shift))
        return update + (h if self.skip is None else self.skip(h))


class _SelfAttention(nnx.Module):
    """Every pixel looks at every other, with one head; at first the identity."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.norm = GroupNorm(features)
        self.linear_in = nnx.Linear(features, 3 * features, rngs=rngs)
        self.linear_out = nnx.Linear(features, features, kernel_init=ZEROS, rngs=rngs)

    def __call__(self, h: Array) -> Array:
        pixels = self.norm(h).reshape(-1, 1, h.shape[-1])
        query, key, value = jnp.split(self.linear_in(pixels), 3, axis=-1)
        update = jax.nn.dot_product_attention(query, key, value)
        return h + self.linear_out(update).reshape(h.shape)


class Stage(nnx.Module):
    """A residual block, and self-attention at some levels."""

    def __init__(self, features_in: int, features: int, num_embedded: int, attends: bool, rngs):
        self.block = _ResidualBlock(features_in, features, num_embedded, rngs)
        self.attention = _SelfAttention(features, rngs) if attends else None

    def __call__(self, h: Array, embedding: Array) -> Array:
        h = self.block(h, embedding)
        return h if self.attention is None else self.attention(h)


def patches(h: Array) -> Array:
    """Patches of two by two pixels, an odd edge repeated: `(ceil(h / 2), ceil(w / 2), 4 c)`."""
    height, width, features = h.shape
    h = jnp.pad(h, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rows, columns = -(-height // 2), -(-width // 2)
    h = h.reshape(rows, 2, columns, 2, features)
    return jnp.moveaxis(h, 1, 2).reshape(rows, columns, 4 * features)


def doubled(h: Array, shape: tuple[int, ...]) -> Array:
    """Every pixel twice in height and width, cut to a shape."""
    return jnp.repeat(jnp.repeat(h, 2, axis=0), 2, axis=1)[: shape[0], : shape[1]]
