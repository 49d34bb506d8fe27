# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The blocks of a U-Net: on the way down, in the middle, on the way up."""

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from numpyro_scores.pretrained.config import DOWN_BLOCKS, UP_BLOCKS, BlockKind, UNet2DConfig
from numpyro_scores.pretrained.layers import (
    ACTIVATIONS,
    Conv,
    GroupNorm,
    HalvingConv,
    SelfAttention,
)
from numpyro_scores.pretrained.resampling import (
    average_down,
    fir_down,
    fir_up,
    nearest_up,
)
from numpyro_scores.pretrained.residual import ResidualBlock
from numpyro_scores.pretrained.tensors import Tensors

# Of the attention in blocks with a skip, whatever the configuration says.
GROUPS_OF_SKIP_ATTENTION = 32


def _groups(channels: int) -> int:
    """Of the norms in NCSN++."""
    return min(channels // 4, 32)


def _block_groups(config: UNet2DConfig, kind: BlockKind, num_in: int, num_out: int):
    if kind.skip:
        return _groups(num_in), _groups(num_out)
    return config.norm_num_groups, config.norm_num_groups


def _output_scale(kind: BlockKind) -> float:
    return math.sqrt(2) if kind.skip else 1.0


def _attention(
    tensors: Tensors, name: str, channels: int, config: UNet2DConfig, kind: BlockKind
) -> SelfAttention:
    return SelfAttention(
        tensors,
        name,
        channels,
        config.head_dim(channels),
        num_groups=GROUPS_OF_SKIP_ATTENTION if kind.skip else config.norm_num_groups,
        eps=config.norm_eps,
        output_scale=_output_scale(kind),
    )


class Resize(nnx.Module):
    """
    Half or double the size: by a convolution, or by a residual block with a filter in it.

    :param name: the name of the block that it ends.
    :param up: whether it doubles.
    """

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        channels: int,
        config: UNet2DConfig,
        kind: BlockKind,
        *,
        up: bool,
    ):
        self.up = up
        self.conv = nnx.data(None)
        direction = "up" if up else "down"
        sampler = f"{name}.{direction}samplers.0"
        by_field = config.upsample_type if up else config.downsample_type
        if kind.skip or (kind.resample or by_field) == "resnet":
            plain, fir = (nearest_up, fir_up) if up else (average_down, fir_down)
            self.block = ResidualBlock(
                tensors,
                f"{name}.resnet_{direction}" if kind.skip else sampler,
                channels,
                channels,
                config,
                groups=_block_groups(config, kind, channels, channels),
                resample=fir if kind.skip else plain,
                convolve_shortcut=True if kind.skip else None,
                output_scale=_output_scale(kind),
            )
        elif up:
            self.conv = Conv(tensors, f"{sampler}.conv", channels, channels)
        else:
            # Without padding on both sides it pads on the right and below.
            before = 1 if config.downsample_padding else 0
            conv = f"{sampler}.conv"
            self.conv = HalvingConv(tensors, conv, channels, channels, before=before)

    def __call__(self, x: Array, embedding: Array) -> Array:
        if self.conv is not None:
            return self.conv(nearest_up(x) if self.up else x)
        return self.block(x, embedding)


class DownBlock(nnx.Module):
    """
    Residual blocks, each followed by attention if there is some, and half the size unless it is the
    last block. With a skip, a picture is halved beside it and added through a 1 x 1 convolution.
    """

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        num_in: int,
        num_out: int,
        config: UNet2DConfig,
        *,
        kind: str,
        last: bool,
    ):
        self.kind = DOWN_BLOCKS[kind]
        scale = _output_scale(self.kind)
        blocks, attentions = [], []
        for i in range(config.layers_per_block):
            channels = num_in if i == 0 else num_out
            groups = _block_groups(config, self.kind, channels, num_out)
            block = f"{name}.resnets.{i}"
            blocks.append(
                ResidualBlock(
                    tensors, block, channels, num_out, config, groups=groups, output_scale=scale
                )
            )
            if self.kind.attention:
                at = f"{name}.attentions.{i}"
                attentions.append(_attention(tensors, at, num_out, config, self.kind))
        self.blocks, self.attentions = nnx.List(blocks), nnx.List(attentions)
        self.resize = self.skip_conv = nnx.data(None)
        if last:
            return
        self.resize = Resize(tensors, name, num_out, config, self.kind, up=False)
        if self.kind.skip:
            self.skip_conv = Conv(tensors, f"{name}.skip_conv", 3, num_out, 1)

    def __call__(
        self, x: Array, embedding: Array, picture: Array
    ) -> tuple[Array, list[Array], Array]:
        """
        :return: what comes out, all that the way up will see, and the picture.
        """
        seen = []
        for i, block in enumerate(self.blocks):
            x = block(x, embedding)
            if self.kind.attention:
                x = self.attentions[i](x)
            seen.append(x)
        if self.resize is not None:
            x = self.resize(x, embedding)
            if self.skip_conv is not None:
                picture = fir_down(picture)
                x = self.skip_conv(picture) + x
            seen.append(x)
        return x, seen, picture


class MidBlock(nnx.Module):
    """A residual block, attention or none, and another residual block."""

    def __init__(self, tensors: Tensors, name: str, channels: int, config: UNet2DConfig):
        scale = config.mid_block_scale_factor
        num_groups = config.norm_num_groups
        num_groups = _groups(channels) if num_groups is None else num_groups
        self.block_in, self.block_out = (
            ResidualBlock(
                tensors, f"{name}.resnets.{i}", channels, channels, config,
                groups=(num_groups, num_groups), output_scale=scale,
            )
            for i in range(2)
        )  # fmt: skip
        self.attention = nnx.data(None)
        if config.add_attention:
            attention_groups = config.attn_norm_num_groups
            # diffusers leaves out the norm of this attention if the time scales and shifts.
            if attention_groups is None and config.resnet_time_scale_shift == "default":
                attention_groups = num_groups
            self.attention = SelfAttention(
                tensors, f"{name}.attentions.0", channels, config.head_dim(channels),
                num_groups=attention_groups, eps=config.norm_eps, output_scale=scale,
            )  # fmt: skip

    def __call__(self, x: Array, embedding: Array) -> Array:
        x = self.block_in(x, embedding)
        if self.attention is not None:
            x = self.attention(x)
        return self.block_out(x, embedding)


class UpBlock(nnx.Module):
    """
    Residual blocks of what comes from below beside what the way down has seen, and double the size
    unless it is the last block. With a skip, a picture is doubled and added to.
    """

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        num_below: int,
        num_skip: int,
        num_out: int,
        config: UNet2DConfig,
        *,
        kind: str,
        last: bool,
    ):
        self.kind = UP_BLOCKS[kind]
        scale = _output_scale(self.kind)
        num_blocks = config.layers_per_block + 1
        blocks, attentions = [], []
        for i in range(num_blocks):
            seen = num_skip if i == num_blocks - 1 else num_out
            below = num_below if i == 0 else num_out
            groups = _block_groups(config, self.kind, below + seen, num_out)
            if self.kind.skip and self.kind.attention:
                # As diffusers counts them here: a quarter of `seen` alone.
                groups = min(below + seen // 4, 32), groups[1]
            blocks.append(
                ResidualBlock(
                    tensors, f"{name}.resnets.{i}", below + seen, num_out, config,
                    groups=groups, output_scale=scale,
                )
            )  # fmt: skip
        num_attentions = (1 if self.kind.skip else num_blocks) if self.kind.attention else 0
        for i in range(num_attentions):
            attentions.append(
                _attention(tensors, f"{name}.attentions.{i}", num_out, config, self.kind)
            )
        self.blocks, self.attentions = nnx.List(blocks), nnx.List(attentions)
        self.resize = self.skip_norm = self.skip_conv = nnx.data(None)
        if last:
            return
        self.resize = Resize(tensors, name, num_out, config, self.kind, up=True)
        if self.kind.skip:
            norm = f"{name}.skip_norm"
            self.skip_norm = GroupNorm(tensors, norm, num_out, _groups(num_out), config.norm_eps)
            self.skip_conv = Conv(tensors, f"{name}.skip_conv", num_out, 3)

    def __call__(
        self, x: Array, seen: list[Array], embedding: Array, picture: Array | None
    ) -> tuple[Array, Array | None]:
        """
        :param seen: what the way down has seen; the blocks take theirs from its end.
        :param picture: that of the blocks with a skip, None before the first of them.
        """
        for i, block in enumerate(self.blocks):
            x = block(jnp.concatenate([x, seen.pop()], -1), embedding)
            if self.kind.attention and not self.kind.skip:
                x = self.attentions[i](x)
        if self.kind.attention and self.kind.skip:
            x = self.attentions[0](x)
        if self.kind.skip and picture is not None:
            picture = fir_up(picture)
        if self.skip_conv is not None and self.skip_norm is not None:
            added = self.skip_conv(ACTIVATIONS["silu"](self.skip_norm(x)))
            picture = added if picture is None else picture + added
        return x if self.resize is None else self.resize(x, embedding), picture
