# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The network `UNet2DModel` of diffusers, of one unbatched picture, channels last."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from numpyro_scores._validation import check_event
from numpyro_scores.pretrained.blocks import DownBlock, MidBlock, UpBlock
from numpyro_scores.pretrained.config import UNet2DConfig
from numpyro_scores.pretrained.kinds import dtype_of_computations
from numpyro_scores.pretrained.layers import ACTIVATIONS, Conv, GroupNorm
from numpyro_scores.pretrained.passes import ascend, descend, recomputed
from numpyro_scores.pretrained.tensors import Tensors
from numpyro_scores.pretrained.time_embedding import (
    FourierFeatures,
    PositionalFeatures,
    TimeEmbedding,
)


class UNet2D(nnx.Module):
    """
    The U-Net of DDPM (Ho, Jain & Abbeel 2020) and of NCSN++ (Song et al. 2021), in the forms that
    `UNet2DModel` has; the weights are those of a file.

    :param config: the configuration.
    :param tensors: the weights.
    :param event_shape: `(h, w, in_channels)`.
    :param dtype: of all computations but those of the time and of norms, such as `jnp.bfloat16`;
        by default that of the picture.
    :param label: the class, if the network takes one: its index, a time, or an embedding.
    :param remat: compute each block anew in the gradient, instead of keeping what it computed.
    :raises ValueError: if the label is of another kind, or a number of groups doesn't divide the
        channels.
    """

    def __init__(
        self,
        config: UNet2DConfig,
        tensors: Tensors,
        event_shape: tuple[int, int, int],
        *,
        dtype: Any = None,
        label: Any = None,
        remat: bool = False,
    ):
        self.remat = remat
        self.event_shape = event_shape
        self.dtype = dtype_of_computations(dtype)
        self.center = config.center_input_sample
        self.divide_by_time = config.time_embedding_type == "fourier"
        widths = config.block_out_channels
        if self.divide_by_time:
            self.features = FourierFeatures(tensors, "time_proj.weight", widths[0], log=True)
        else:
            shift, cosines_first = config.freq_shift, config.flip_sin_to_cos
            self.features = PositionalFeatures(widths[0], shift, cosines_first)
        size = config.embedding_size
        self.embedding = TimeEmbedding(tensors, "time_embedding", config.num_features, size)
        self.class_embedding = _class_embedding(config, tensors, self.features, label)
        self.conv_in = Conv(tensors, "conv_in", config.in_channels, widths[0])
        self._make_blocks(config, tensors)
        num_groups = config.norm_num_groups
        num_groups = min(widths[0] // 4, 32) if num_groups is None else num_groups
        self.norm_out = GroupNorm(tensors, "conv_norm_out", widths[0], num_groups, config.norm_eps)
        self.conv_out = Conv(tensors, "conv_out", widths[0], config.out_channels)

    def _make_blocks(self, config: UNet2DConfig, tensors: Tensors) -> None:
        widths = config.block_out_channels
        last = len(widths) - 1
        self.down = nnx.List(
            DownBlock(
                tensors, f"down_blocks.{i}", widths[max(i - 1, 0)], widths[i], config,
                kind=kind, last=i == last,
            )
            for i, kind in enumerate(config.down_block_types)
        )  # fmt: skip
        self.mid = nnx.data(None)
        if config.mid_block_type is not None:
            self.mid = MidBlock(tensors, "mid_block", widths[-1], config)
        up = widths[::-1]
        self.up = nnx.List(
            UpBlock(
                tensors, f"up_blocks.{i}", up[max(i - 1, 0)], up[min(i + 1, last)], up[i], config,
                kind=kind, last=i == last,
            )
            for i, kind in enumerate(config.up_block_types)
        )  # fmt: skip

    def __call__(self, x: Array, t: Array) -> Array:
        """
        :param x: one picture, shape `event_shape`.
        :param t: its time as the network counts it (a step or a noise level), shape `()`.
        :return: shape `(h, w, out_channels)`, of the dtype of `x`.
        """
        check_event("UNet2D", x, self.event_shape)
        out_dtype = jnp.result_type(x, float)
        dtype = out_dtype if self.dtype is None else self.dtype
        t = jnp.asarray(t, jnp.promote_types(out_dtype, jnp.float32))
        x = x.astype(dtype)
        embedding = self.embedding(self.features(t).astype(dtype))
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding[...].astype(dtype)
        if self.center:
            x = 2 * x - 1
        first = self.conv_in(x)
        h, seen = descend(self.down, first, embedding, x, remat=self.remat)
        if self.mid is not None:
            h = recomputed(self.mid, self.remat)(h, embedding)
        h, picture = ascend(self.up, h, [first, *seen], embedding, remat=self.remat)
        h = self.conv_out(ACTIVATIONS["silu"](self.norm_out(h)))
        if picture is not None:
            h = h + picture
        h = h.astype(out_dtype)
        return h / t.astype(out_dtype) if self.divide_by_time else h


def _class_embedding(
    config: UNet2DConfig, tensors: Tensors, features: Any, label: Any
) -> nnx.Param | None:
    """The numbers that one class adds to the embedding of the time."""
    if not config.takes_label:
        if label is not None:
            raise ValueError(f"The network takes no class, but label = {label!r} was given.")
        return None
    name, size = "class_embedding", config.embedding_size
    if config.class_embed_type == "identity":
        found = _label("an embedding", label, (size,))
    elif config.class_embed_type == "timestep":
        embed = TimeEmbedding(tensors, name, config.num_features, size)
        found = embed(features(jnp.asarray(_label("a number", label, ()), float)))
    else:
        number = config.num_class_embeds or 0
        table = tensors.take(f"{name}.weight", (number, size))
        found = table[class_index("load_diffusers", label, number)]
    return nnx.Param(jnp.asarray(found))


def class_index(reader: str, label: Any, number: int) -> int:
    """
    A label as one of `number` classes.

    :param reader: who asks for it.
    :raises ValueError: unless it is one.
    """
    index = _label(f"a class from 0 to {number - 1}", label, (), reader)
    if not (index == int(index) and 0 <= index < number):
        raise ValueError(f"label must be a class from 0 to {number - 1}, got {label!r}.")
    return int(index)


def _label(
    what: str, label: Any, shape: tuple[int, ...], reader: str = "load_diffusers"
) -> np.ndarray:
    if label is None:
        raise ValueError(
            f"The network wants to know a class: {reader}(folder, label=...) takes {what}."
        )
    try:
        found = np.asarray(label, float)
    except (TypeError, ValueError):
        found = np.asarray(np.nan)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"label must be {what}, of shape {shape}, got {label!r}.")
    return found
