# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The configuration of a `UNet2DModel`, read from a `config.json`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from numpyro_scores.pretrained.kinds import (
    COUNT,
    COUNTS,
    NAMES,
    NUMBER,
    POSITIVE,
    TRUTH,
    check_kinds,
    is_whole,
)
from numpyro_scores.pretrained.layers import ACTIVATIONS


@dataclass(frozen=True)
class BlockKind:
    """
    :param attention: whether a block has self-attention.
    :param skip: whether a block carries a picture of its own along (NCSN++), with FIR resampling.
    :param resample: how the size is changed, `"conv"` or `"resnet"`; None if a field of the
        configuration says.
    """

    attention: bool = False
    skip: bool = False
    resample: str | None = "conv"


DOWN_BLOCKS = {
    "DownBlock2D": BlockKind(),
    "AttnDownBlock2D": BlockKind(attention=True, resample=None),
    "ResnetDownsampleBlock2D": BlockKind(resample="resnet"),
    "SkipDownBlock2D": BlockKind(skip=True),
    "AttnSkipDownBlock2D": BlockKind(attention=True, skip=True),
}
UP_BLOCKS = {name.replace("Down", "Up"): kind for name, kind in DOWN_BLOCKS.items()}
CHOICES = {
    "time_embedding_type": ("positional", "fourier"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "mid_block_type": ("UNetMidBlock2D", None),
    "act_fn": tuple(ACTIVATIONS),
    "class_embed_type": (None, "timestep", "identity"),
    "downsample_padding": (0, 1),
}
KINDS = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "center_input_sample": TRUTH,
    "time_embedding_dim": COUNT.or_none(),
    "freq_shift": NUMBER,
    "flip_sin_to_cos": TRUTH,
    "down_block_types": NAMES,
    "up_block_types": NAMES,
    "block_out_channels": COUNTS,
    "layers_per_block": COUNT,
    "mid_block_scale_factor": POSITIVE,
    "attention_head_dim": COUNT.or_none(),
    "norm_num_groups": COUNT.or_none(),
    "attn_norm_num_groups": COUNT.or_none(),
    "norm_eps": POSITIVE,
    "add_attention": TRUTH,
    "num_class_embeds": COUNT.or_none(),
    "num_train_timesteps": COUNT.or_none(),
}


@dataclass(frozen=True)
class UNet2DConfig:
    """
    The fields of `UNet2DModel` in diffusers, with the values that it gives to absent ones. Dropout
    is a matter of training alone.

    :raises ValueError: if a field has a value that isn't handled, or two don't fit together.
    """

    sample_size: Any = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", *("AttnDownBlock2D",) * 3)
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = (*("AttnUpBlock2D",) * 3, "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int | None = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    def __post_init__(self):
        check_kinds(vars(self), KINDS)
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} = {value!r} is not handled; handled are {choices}.")
        for name, kinds in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
            for value in getattr(self, name):
                if value not in kinds:
                    raise ValueError(
                        f"{name} holds {value!r}, which is not handled; handled are {(*kinds,)}."
                    )
        levels = len(self.block_out_channels)
        if not levels == len(self.down_block_types) == len(self.up_block_types) > 0:
            raise ValueError(
                "block_out_channels, down_block_types and up_block_types must be of one length, "
                f"got {levels}, {len(self.down_block_types)} and {len(self.up_block_types)}."
            )
        positional = self.time_embedding_type == "positional"
        if positional and not self.freq_shift < max(self.block_out_channels[0] // 2, 1):
            raise ValueError(
                "freq_shift must be below half of block_out_channels[0], got "
                f"{self.freq_shift} and {self.block_out_channels[0]}."
            )
        _check_skips(self)

    @property
    def embedding_size(self) -> int:
        """How many numbers embed the time."""
        return self.time_embedding_dim or 4 * self.block_out_channels[0]

    @property
    def num_features(self) -> int:
        """How many sines and cosines the embedding is made of."""
        fourier = self.time_embedding_type == "fourier"
        return self.block_out_channels[0] * (2 if fourier else 1)

    @property
    def takes_label(self) -> bool:
        """Whether the network wants to know a class."""
        return self.class_embed_type is not None or self.num_class_embeds is not None

    def head_dim(self, channels: int) -> int:
        """The width of an attention head; by default one head is as wide as the channels."""
        return channels if self.attention_head_dim is None else self.attention_head_dim

    def picture_size(self, sample_size: Any = None) -> tuple[int, int]:
        """
        Height and width of a picture.

        :param sample_size: other than that of the configuration, if not None.
        :raises ValueError: if there is none, or it can't be halved from level to level.
        """
        size = self.sample_size if sample_size is None else sample_size
        if size is None:
            raise ValueError(
                "The configuration has no sample_size: load_diffusers(folder, sample_size=...) "
                "takes the height and width of a picture."
            )
        size = tuple(size) if isinstance(size, tuple | list) else (size, size)
        multiple = 2 ** (len(self.block_out_channels) - 1)
        if len(size) != 2 or any(not is_whole(n, 1) or n % multiple for n in size):
            raise ValueError(
                f"sample_size must be one or two multiples of {multiple}, since the network halves "
                f"pictures {int(math.log2(multiple))} times, got {size}."
            )
        return int(size[0]), int(size[1])


def _check_skips(config: UNet2DConfig) -> None:
    down = [DOWN_BLOCKS[name].skip for name in config.down_block_types]
    up = [UP_BLOCKS[name].skip for name in config.up_block_types]
    if any(down + up) and (config.in_channels, config.out_channels) != (3, 3):
        raise ValueError(
            "Skip blocks have pictures of three channels (diffusers writes the 3 into them), but "
            f"in_channels = {config.in_channels} and out_channels = {config.out_channels}."
        )
    # A block without a skip would leave the picture of those before it at half the size.
    if any(earlier and not later for earlier, later in zip(up, up[1:], strict=False)):
        raise ValueError(
            f"up_block_types = {config.up_block_types} has a block without a skip after one with a "
            "skip, for which diffusers adds pictures of different sizes."
        )
    if config.norm_num_groups is None and not all(down + up):
        raise ValueError("norm_num_groups = null is for skip blocks only, which choose their own.")


def read_json(path: Path) -> dict[str, Any]:
    """
    :raises ValueError: if the file holds no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is no JSON, truncated or damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object, got {type(found).__name__}.")
    return found


def read_unet_config(path: Path) -> UNet2DConfig:
    """
    :param path: a `config.json`.
    :raises ValueError: if it is of another class, or has a field or a value that isn't handled.
    """
    found = read_json(path)
    check_class(path, found.get("_class_name"))
    known = {f.name for f in fields(UNet2DConfig)}
    values = fields_of(path, found, known)
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    for name in ("down_block_types", "up_block_types"):
        if name in values:  # names of the first versions
            values[name] = tuple(x.removeprefix("UNetRes") for x in values[name])
    try:
        return UNet2DConfig(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def fields_of(
    path: Path, found: Mapping[str, Any], known: set[str], *, reader: str = "load_diffusers"
) -> dict[str, Any]:
    """
    The fields of a configuration but for its notes, such as `_diffusers_version`.

    :raises ValueError: if one isn't known.
    """
    values = {name: value for name, value in found.items() if not name.startswith("_")}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"{str(path)!r} has the field{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}, "
            f"which {reader} does not handle: a network that depends on it would come out wrong. "
            "If it does nothing in this model, take it out of the file."
        )
    return values


def check_class(path: Path, name: Any) -> None:
    """
    :raises ValueError: unless the class is `UNet2DModel`.
    """
    if name == "UNet2DModel":
        return
    if name == "UNet2DConditionModel":
        raise ValueError(
            f"{str(path)!r} is of a UNet2DConditionModel, a network that takes a text or another "
            "condition: load_diffusers reads unconditional models, of the class UNet2DModel."
        )
    raise ValueError(
        f"{str(path)!r} is of the class {name!r}: load_diffusers reads networks of the class "
        "UNet2DModel, load_edm those of EDM."
    )
