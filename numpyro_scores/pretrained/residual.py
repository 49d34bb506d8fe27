# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The residual block of a U-Net that sees the time."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array

from numpyro_scores.pretrained.config import UNet2DConfig
from numpyro_scores.pretrained.layers import ACTIVATIONS, Conv, Dense, GroupNorm
from numpyro_scores.pretrained.tensors import Tensors


class ResidualBlock(nnx.Module):
    r"""
    :math:`(S(R x) + C_2\, a(N_2(C_1 R\, a(N_1 x) + T a(e)))) / s`: norms `N`, convolutions `C`, the
    activation `a`, the embedding `e` of the time, a change of size `R` or none, and a 1 x 1
    convolution `S` or none. With `resnet_time_scale_shift: scale_shift` the embedding scales and
    shifts what comes out of :math:`N_2`.

    :param groups: groups of both norms.
    :param resample: the change of size.
    :param convolve_shortcut: whether there is an `S`; if None, where the channels change.
    :param output_scale: `s`.
    """

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        num_in: int,
        num_out: int,
        config: UNet2DConfig,
        *,
        groups: tuple[int, int],
        resample: Callable[[Array], Array] | None = None,
        convolve_shortcut: bool | None = None,
        output_scale: float = 1.0,
    ):
        eps = config.norm_eps
        self.scale_and_shift = config.resnet_time_scale_shift == "scale_shift"
        self.norm1 = GroupNorm(tensors, f"{name}.norm1", num_in, groups[0], eps)
        self.conv1 = Conv(tensors, f"{name}.conv1", num_in, num_out)
        num_shifts = 2 * num_out if self.scale_and_shift else num_out
        self.project = Dense(tensors, f"{name}.time_emb_proj", config.embedding_size, num_shifts)
        self.norm2 = GroupNorm(tensors, f"{name}.norm2", num_out, groups[1], eps)
        self.conv2 = Conv(tensors, f"{name}.conv2", num_out, num_out)
        self.shortcut = nnx.data(None)
        if num_in != num_out if convolve_shortcut is None else convolve_shortcut:
            shortcut = f"{name}.conv_shortcut"
            self.shortcut = Conv(tensors, shortcut, num_in, num_out, 1)
        self.activation = ACTIVATIONS[config.act_fn]
        self.resample = resample
        self.output_scale = output_scale

    def __call__(self, x: Array, embedding: Array) -> Array:
        h = self.activation(self.norm1(x))
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv1(h)
        shift = self.project(self.activation(embedding))
        if self.scale_and_shift:
            scale, shift = jnp.split(shift, 2)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + shift)
        h = self.conv2(self.activation(h))
        if self.shortcut is not None:
            x = self.shortcut(x)
        return (x + h) / self.output_scale
