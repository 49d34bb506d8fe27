# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The networks of score_sde (DDPM++, NCSN++) and of ADM, of one unbatched picture."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from numpyro_scores._validation import check_event
from numpyro_scores.pretrained.edm.block import BlockStyle, UNetBlock, num_groups
from numpyro_scores.pretrained.edm.config import EDMConfig
from numpyro_scores.pretrained.kinds import dtype_of_computations
from numpyro_scores.pretrained.layers import Conv, Dense, GroupNorm
from numpyro_scores.pretrained.passes import ascend, descend
from numpyro_scores.pretrained.tensors import Tensors
from numpyro_scores.pretrained.time_embedding import FourierFeatures, PositionalFeatures
from numpyro_scores.pretrained.unet import class_index


def style_of(config: EDMConfig) -> BlockStyle:
    """In what the blocks of the network differ from those of the other."""
    num_emb = config.fields["model_channels"] * config.fields["channel_mult_emb"]
    if config.is_song:
        taps = config.fields["resample_filter"]
        return BlockStyle(num_emb, None, math.sqrt(0.5), 1e-6, False, True, taps)
    return BlockStyle(num_emb, 64, 1.0, 1e-5, True, False, (1, 1))


class EncoderLevel(nnx.Module):
    """
    Half the size but for the first level, and residual blocks. With a `skip` encoder the halved
    picture is added through a 1 x 1 convolution, with a `residual` one what came of it so far.

    :param num_picture: channels of the picture from the level before.
    """

    def __init__(
        self,
        tensors: Tensors,
        config: EDMConfig,
        style: BlockStyle,
        level: int,
        num_in: int,
        num_picture: int,
    ):
        fields, self.style = config.fields, style
        size = config.img_resolution >> level
        name = f"model.enc.{size}x{size}"
        num_out = fields["model_channels"] * fields["channel_mult"][level]
        self.kind = fields.get("encoder_type", "standard") if level else "standard"
        self.conv = self.halve = self.aux = nnx.data(None)
        if level == 0:
            # ADM's first convolution is as wide as the level, score_sde's as wide as the base.
            width = fields["model_channels"] if config.is_song else num_out
            self.conv = Conv(tensors, f"{name}_conv", num_in, width)
            num_in = width
        else:
            self.halve = UNetBlock(
                tensors, f"{name}_down", num_in, num_in, style, resample=style.down
            )
        if self.kind == "skip":
            style.take_filter(tensors, f"{name}_aux_down")
            self.aux = Conv(tensors, f"{name}_aux_skip", num_picture, num_in, 1)
        if self.kind == "residual":
            aux = f"{name}_aux_residual"
            style.take_filter(tensors, aux)
            border = (len(style.taps) - 1) // 2
            self.aux = Conv(tensors, aux, num_picture, num_in, border=border)
            num_picture = num_in
        self.num_picture = num_picture
        attention = size in fields["attn_resolutions"]
        widths = [num_in] + [num_out] * fields["num_blocks"]
        self.blocks = nnx.List(
            UNetBlock(tensors, f"{name}_block{i}", widths[i], num_out, style, attention=attention)
            for i in range(fields["num_blocks"])
        )
        # As many channels as each of what the way up will see.
        self.seen_channels = tuple(widths)

    def __call__(
        self, x: Array, embedding: Array, picture: Array
    ) -> tuple[Array, list[Array], Array]:
        """
        :return: what comes out, all that the way up will see, and the picture of the encoder.
        """
        if self.conv is not None:
            x = self.conv(x)
        if self.halve is not None:
            x = self.halve(x, embedding)
        if self.aux is not None and self.kind == "skip":
            picture = self.style.down(picture)
            x = x + self.aux(picture)
        elif self.aux is not None:
            # The convolution goes first, on a border for the filter, which keeps the bias.
            halved = self.style.down_within(self.aux(picture))
            x = picture = (x + halved) / math.sqrt(2)
        seen = [x]
        for block in self.blocks:
            x = block(x, embedding)
            seen.append(x)
        return x, seen, picture


class DecoderLevel(nnx.Module):
    """
    Two blocks at the bottom or twice the size, then residual blocks of this beside what the way
    down has seen, and a picture where the network puts one out.
    """

    def __init__(
        self,
        tensors: Tensors,
        config: EDMConfig,
        style: BlockStyle,
        level: int,
        num_in: int,
        seen_channels: list[int],
    ):
        fields, self.style = config.fields, style
        size = config.img_resolution >> level
        name = f"model.dec.{size}x{size}"
        bottom = level == len(fields["channel_mult"]) - 1
        if bottom:
            inner, resampled = {"_in0": True, "_in1": False}, None
        else:
            inner, resampled = {"_up": False}, style.up
        self.first = nnx.List(
            UNetBlock(
                tensors, f"{name}{part}", num_in, num_in, style, resample=resampled, attention=attn
            )
            for part, attn in inner.items()
        )
        num_out = fields["model_channels"] * fields["channel_mult"][level]
        blocks, last = [], fields["num_blocks"]
        for i in range(last + 1):
            below = num_in if i == 0 else num_out
            # score_sde attends once a level on the way up, ADM in every block.
            attends = size in fields["attn_resolutions"] and (i == last or not config.is_song)
            blocks.append(
                UNetBlock(
                    tensors,
                    f"{name}_block{i}",
                    below + seen_channels.pop(),
                    num_out,
                    style,
                    attention=attends,
                )
            )
        self.blocks = nnx.List(blocks)
        skips = fields.get("decoder_type") == "skip"
        if skips and not bottom:
            style.take_filter(tensors, f"{name}_aux_up")
        self.norm = self.conv = nnx.data(None)
        if skips or level == 0:
            out = f"{name}_aux" if config.is_song else "model.out"
            self.norm = GroupNorm(tensors, f"{out}_norm", num_out, num_groups(num_out), style.eps)
            self.conv = Conv(tensors, f"{out}_conv", num_out, config.out_channels)

    def __call__(
        self, x: Array, seen: list[Array], embedding: Array, picture: Array | None
    ) -> tuple[Array, Array | None]:
        """
        :param seen: what the way down has seen; the blocks take theirs from its end.
        :param picture: what the levels below put out, None if nothing.
        """
        for block in self.first:
            x = block(x, embedding)
        for block in self.blocks:
            x = block(jnp.concatenate([x, seen.pop()], -1), embedding)
        if self.norm is not None and self.conv is not None:
            added = self.conv(jax.nn.silu(self.norm(x)))
            picture = added if picture is None else self.style.up(picture) + added
        return x, picture


class EDMUNet(nnx.Module):
    """
    The network `F` beneath a preconditioning, :math:`F(x, c)`, with the weights of a file; without
    dropout and without the labels of augmentation, as it draws.

    :param config: the arguments that it was made with.
    :param tensors: the weights.
    :param dtype: of all computations but those of the time and of norms; by default that of the
        picture.
    :param label: the class, if the network takes one.
    :param remat: compute each level anew in the gradient, instead of keeping what it computed.
    """

    def __init__(
        self,
        config: EDMConfig,
        tensors: Tensors,
        *,
        dtype: Any = None,
        label: Any = None,
        remat: bool = False,
    ):
        fields, style = config.fields, style_of(config)
        self.event_shape = (config.img_resolution, config.img_resolution, config.img_channels)
        self.dtype = dtype_of_computations(dtype)
        self.is_song, self.remat = config.is_song, remat
        size = fields["model_channels"] * fields.get("channel_mult_noise", 1)
        if fields.get("embedding_type") == "fourier":
            name = "model.map_noise.freqs"
            self.features = FourierFeatures(tensors, name, size // 2, log=False)
        else:
            shift = 1 if config.is_song else 0
            self.features = PositionalFeatures(size, shift, cosines_first=not config.is_song)
        self.class_embedding = _class_embedding(config, tensors, size, label)
        if fields["augment_dim"]:
            # It draws pictures that were not augmented: labels of zero add nothing.
            tensors.take("model.map_augment.weight", (size, fields["augment_dim"]))
        self.map_layer0 = Dense(tensors, "model.map_layer0", size, style.num_emb)
        self.map_layer1 = Dense(tensors, "model.map_layer1", style.num_emb, style.num_emb)
        levels = range(len(fields["channel_mult"]))
        down, channels, num_picture, seen = [], config.img_channels, config.img_channels, []
        for level in levels:
            down.append(EncoderLevel(tensors, config, style, level, channels, num_picture))
            seen += down[-1].seen_channels
            channels, num_picture = seen[-1], down[-1].num_picture
        up = []
        for level in reversed(levels):
            up.append(DecoderLevel(tensors, config, style, level, channels, seen))
            channels = fields["model_channels"] * fields["channel_mult"][level]
        self.down, self.up = nnx.List(down), nnx.List(up)

    def __call__(self, x: Array, c: Array) -> Array:
        """
        :param x: one picture in the units of the network, shape `event_shape`.
        :param c: what the network sees of its noise level, shape `()`.
        :return: shape `(h, w, out_channels)`, of the dtype of `x`.
        """
        check_event("EDMUNet", x, self.event_shape)
        out_dtype = jnp.result_type(x, float)
        dtype = out_dtype if self.dtype is None else self.dtype
        c = jnp.asarray(c, jnp.promote_types(out_dtype, jnp.float32))
        x = x.astype(dtype)
        embedding = self._embedding(c).astype(dtype)
        x, seen = descend(self.down, x, embedding, x, remat=self.remat)
        x, out = ascend(self.up, x, seen, embedding, remat=self.remat)
        assert out is not None  # the last level puts out a picture
        return out.astype(out_dtype)

    def _embedding(self, c: Array) -> Array:
        embedding = self.features(c)
        added = 0.0
        if self.class_embedding is not None:
            added = self.class_embedding[...].astype(embedding.dtype)
        if self.is_song:
            embedding = embedding + added
        embedding = self.map_layer1(jax.nn.silu(self.map_layer0(embedding)))
        return jax.nn.silu(embedding if self.is_song else embedding + added)


def _class_embedding(
    config: EDMConfig, tensors: Tensors, num_features: int, label: Any
) -> nnx.Param | None:
    """The numbers that one class adds: to the features of the time, or to their embedding (ADM)."""
    number = config.label_dim
    if not number:
        if label is not None:
            raise ValueError(f"The network takes no class, but label = {label!r} was given.")
        return None
    name = "model.map_label"
    fields = config.fields
    num_emb = fields["model_channels"] * fields["channel_mult_emb"]
    size = num_features if config.is_song else num_emb
    # In float64, where there is one: torch multiplies when it knows the dtype of the picture.
    table = tensors.take(f"{name}.weight", (size, number)).astype(float)
    added = np.zeros(size)
    if label is not None or not fields["label_dropout"]:
        added = table[:, class_index("load_edm", label, number)]
    if config.is_song:
        added = math.sqrt(number) * added + tensors.take(f"{name}.bias", (size,))
    return nnx.Param(jnp.asarray(added))
