# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Folders that are damaged, foreign, or of a model that isn't handled: each is refused in words."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import numpyro_scores as ns

DATA = Path(__file__).resolve().parents[1] / "data" / "diffusers"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A network of one level, which is read at once."""
    shutil.copytree(DATA / "classes", tmp_path / "model")
    return tmp_path / "model"


def refused(folder, message, error=ValueError, label=0, **options):
    with pytest.raises(error, match=message):
        ns.load_diffusers(folder, label=label, **options)


def edit(folder, file="config.json", **fields):
    found = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps(found | fields))


def edit_weights(folder, **changed):
    weights = load_file(folder / WEIGHTS)
    for name, tensor in changed.items():
        weights[name.replace("__", ".")] = tensor
    save_file({k: v for k, v in weights.items() if v is not None}, folder / WEIGHTS)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"attention_legacy_order": False}, "attention_legacy_order.*does not handle"),
        ({"time_embedding_type": "learned"}, "time_embedding_type = 'learned'"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift = 'spatial'"),
        ({"act_fn": "glu"}, "act_fn = 'glu'"),
        ({"down_block_types": ["KDownBlock2D"] * 2}, "down_block_types holds 'KDownBlock2D'"),
        ({"up_block_types": ["UpBlock2D"]}, "of one length, got 2, 2 and 1"),
        ({"up_block_types": ["SkipUpBlock2D"] * 2}, "three channels"),
        ({"norm_num_groups": None}, "norm_num_groups = null"),
        ({"norm_num_groups": 3}, "4 channels, which don't fall into 3 groups"),
        ({"sample_size": 5}, "multiples of 2"),
        ({"sample_size": 4.0}, "multiples of 2.*4.0"),
        ({"block_out_channels": [4, 0]}, "block_out_channels must be a list of positive whole"),
        ({"attention_head_dim": 0}, "attention_head_dim must be a positive whole number or null"),
        ({"center_input_sample": "false"}, "center_input_sample must be true or false"),
        ({"norm_eps": None}, "norm_eps must be a positive number, got None"),
        ({"freq_shift": 2}, "freq_shift must be below half"),
        ({"sample_size": None}, "load_diffusers\\(folder, sample_size"),
        ({"out_channels": 2}, "put out 1 channels"),
        ({"time_embedding_type": "fourier"}, "do not fit"),
        ({"_class_name": "UNet2DConditionModel"}, "takes a text"),
        ({"_class_name": "AutoencoderKL"}, "of the class 'AutoencoderKL'"),
        ({"_class_name": "EDMPrecond"}, "load_edm those of EDM"),
    ],
)
def test_configurations(folder, fields, message):
    edit(folder, **fields)
    refused(folder, message)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"_class_name": "EDMEulerScheduler"}, "'EDMEulerScheduler', which"),
        ({"beta_schedule": "laplace"}, "beta_schedule = 'laplace'"),
        ({"prediction_type": "flow"}, "prediction_type = 'flow'"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas = True"),
        ({"shift_of_mine": 1}, "shift_of_mine"),
        ({"trained_betas": [0.1, 1.2]}, "betas"),
        ({"rescale_betas_zero_snr": "yes"}, "rescale_betas_zero_snr must be true or false"),
    ],
)
def test_schedulers(folder, fields, message):
    edit(folder, "scheduler_config.json", **fields)
    refused(folder, message)


def test_tensors(folder):
    weight = np.full((4, 1, 3, 3), np.nan, np.float32)
    edit_weights(
        folder,
        conv_in__weight=weight,
        conv_in__bias=np.zeros(5, np.float32),
        conv_out__bias=None,
        decoder__weight=weight,
    )
    with pytest.raises(ValueError) as refusal:
        ns.load_diffusers(folder, label=0)
    for part in (
        "conv_in.weight holds NaN",
        "conv_in.bias has shape (5,), the configuration asks (4,)",
        "conv_out.bias of shape (1,) is missing",
        "decoder.weight is of no layer",
    ):
        assert part in str(refusal.value)
    edit_weights(folder, conv_in__weight=np.zeros((4, 1, 3, 3), np.int32))
    refused(folder, "conv_in.weight holds int32")


def test_files(folder, tmp_path):
    refused(tmp_path / "nowhere", "There is no folder", FileNotFoundError)
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    refused(folder, "truncated, damaged or something else")
    (folder / WEIGHTS).unlink()
    refused(folder, "There is no " + re.escape(WEIGHTS), FileNotFoundError)
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"")
    refused(folder, "a pickle(.|\n)*weights_only=True", FileNotFoundError)
    (folder / "config.json").write_text('{"_class_name": ')
    refused(folder, "no JSON")
    (folder / "config.json").write_text("[]")
    refused(folder, "must hold a JSON object, got list")
    (folder / "config.json").unlink()
    refused(folder, "no config.json", FileNotFoundError)
    (folder / "config.json").write_text("{}")
    (folder / "scheduler_config.json").unlink()
    refused(folder, "no scheduler_config.json", FileNotFoundError)


@pytest.mark.parametrize(
    "part, message", [("vqvae", "latent diffusion"), ("text_encoder", "text-conditional")]
)
def test_pipelines_of_more_than_a_network(folder, part, message):
    edit(folder, "model_index.json", unet=["diffusers", "UNet2DModel"])
    edit(folder, "model_index.json", **{part: ["diffusers", "Part"]})
    refused(folder, message)


def test_a_dtype_that_is_none_of_real_numbers(folder):
    for dtype in ("int8", complex, "float17"):
        refused(folder, "dtype must be one of floating-point numbers", dtype=dtype)


def test_labels(folder):
    refused(folder, "wants to know a class.*from 0 to 2", label=None)
    refused(folder, "a class from 0 to 2, got 3", label=3)
    refused(folder, "got 'cat'", label="cat")
    refused(DATA / "ddpm", "takes no class", label=1)
    refused(DATA / "identity_class", r"of shape \(20,\)", label=1.0)
