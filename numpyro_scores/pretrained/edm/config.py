# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a network was made with: the arguments that the authors' classes keep of themselves."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpyro_scores.pretrained.config import fields_of, read_json
from numpyro_scores.pretrained.kinds import (
    COUNT,
    COUNT_OR_ZERO,
    COUNTS,
    COUNTS_OR_NONE,
    NUMBER_OR_ZERO,
    POSITIVE,
    check_kinds,
)

# The wrappers, with the values that they give to absent arguments.
PRECONDITIONINGS: dict[str, dict[str, Any]] = {
    "EDMPrecond": {
        "sigma_min": 0.0,
        "sigma_max": math.inf,
        "sigma_data": 0.5,
        "model_type": "DhariwalUNet",
    },
    "VPPrecond": {
        "beta_d": 19.9,
        "beta_min": 0.1,
        "M": 1000,
        "epsilon_t": 1e-5,
        "model_type": "SongUNet",
    },
    "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100.0, "model_type": "SongUNet"},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000, "model_type": "DhariwalUNet"},
}
# The networks, likewise.
_BOTH = {"augment_dim": 0, "channel_mult_emb": 4, "label_dropout": 0.0}
NETWORKS: dict[str, dict[str, Any]] = {
    "SongUNet": _BOTH
    | {
        "model_channels": 128,
        "channel_mult": (1, 2, 2, 2),
        "num_blocks": 4,
        "attn_resolutions": (16,),
        "embedding_type": "positional",
        "channel_mult_noise": 1,
        "encoder_type": "standard",
        "decoder_type": "standard",
        "resample_filter": (1, 1),
    },
    "DhariwalUNet": _BOTH
    | {
        "model_channels": 192,
        "channel_mult": (1, 2, 3, 4),
        "num_blocks": 3,
        "attn_resolutions": (32, 16, 8),
    },
}
CHOICES = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "skip", "residual"),
    "decoder_type": ("standard", "skip"),
    "resample_filter": ((1, 1), (1, 3, 3, 1)),
}
KINDS = {
    "img_resolution": COUNT,
    "img_channels": COUNT,
    "label_dim": COUNT_OR_ZERO,
    "model_channels": COUNT,
    "channel_mult": COUNTS,
    "channel_mult_emb": COUNT,
    "channel_mult_noise": COUNT,
    "num_blocks": COUNT,
    "attn_resolutions": COUNTS_OR_NONE,
    "augment_dim": COUNT_OR_ZERO,
    "label_dropout": NUMBER_OR_ZERO,
    "sigma_min": NUMBER_OR_ZERO,
    "sigma_max": POSITIVE,
    "sigma_data": POSITIVE,
    "beta_d": POSITIVE,
    "beta_min": POSITIVE,
    "epsilon_t": POSITIVE,
    "C_1": POSITIVE,
    "C_2": POSITIVE,
    "M": COUNT,
}
# Of training, and of how it was computed.
_LEFT_OUT = {"use_fp16", "dropout"}


@dataclass(frozen=True)
class EDMConfig:
    """
    The arguments of a network and of its wrapper.

    :param wrapper: the class of the wrapper, `"EDMPrecond"` say.
    :param family: the class of the network, `"SongUNet"` or `"DhariwalUNet"`.
    :param img_resolution: height and width of a picture.
    :param img_channels: its channels.
    :param label_dim: the number of classes, 0 for none.
    :param constants: the numbers of the wrapper.
    :param fields: the arguments of the network.
    :raises ValueError: if an argument has a value that isn't handled.
    """

    wrapper: str
    family: str
    img_resolution: int
    img_channels: int
    label_dim: int = 0
    constants: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_kinds(vars(self) | self.constants | self.fields, KINDS)
        for name, choices in CHOICES.items():
            if name in self.fields and self.fields[name] not in choices:
                raise ValueError(
                    f"{name} = {self.fields[name]!r} is not handled; handled are {choices}."
                )
        multiple = 2 ** (len(self.fields["channel_mult"]) - 1)
        if self.img_resolution % multiple:
            raise ValueError(
                f"img_resolution must be a multiple of {multiple}, since the network halves "
                f"pictures {len(self.fields['channel_mult']) - 1} times, got {self.img_resolution}."
            )

    @property
    def is_song(self) -> bool:
        """Whether the network is one of score_sde, not one of ADM."""
        return self.family == "SongUNet"

    @property
    def out_channels(self) -> int:
        """What the network puts out; that of improved DDPM has a variance beside each channel."""
        return self.img_channels * (2 if self.wrapper == "iDDPMPrecond" else 1)


def read_edm_config(path: Path) -> EDMConfig:
    """
    :param path: a `config.json`: the name of the wrapper, `_class_name`, and its arguments.
    :raises ValueError: if it is of another class, or has an argument or a value that isn't handled.
    """
    found = read_json(path)
    wrapper = found.get("_class_name")
    if wrapper not in PRECONDITIONINGS:
        raise ValueError(
            f"{str(path)!r} is of the class {wrapper!r}: load_edm reads networks in one of "
            f"{', '.join(PRECONDITIONINGS)}, with its name as _class_name. Folders of diffusers "
            "are read by load_diffusers."
        )
    family = found.get("model_type", PRECONDITIONINGS[wrapper]["model_type"])
    if family not in NETWORKS:
        raise ValueError(
            f"{str(path)!r}: model_type = {family!r} is not handled; handled are {(*NETWORKS,)}."
        )
    sizes = {"img_resolution", "img_channels", "label_dim"}
    constants, network = PRECONDITIONINGS[wrapper], NETWORKS[family]
    known = sizes | set(constants) | set(network) | _LEFT_OUT
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields_of(path, found, known, reader="load_edm").items()
    }
    missing = {"img_resolution", "img_channels"} - set(values)
    if missing:
        raise ValueError(f"{str(path)!r} has no {' and no '.join(sorted(missing))}.")
    try:
        return EDMConfig(
            wrapper,
            family,
            values["img_resolution"],
            values["img_channels"],
            values.get("label_dim", 0),
            constants={k: values.get(k, v) for k, v in constants.items() if k != "model_type"},
            fields={name: values.get(name, default) for name, default in network.items()},
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
