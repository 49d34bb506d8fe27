# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
Write `tests/data/diffusers/`: tiny networks of diffusers with random weights, in folders as
diffusers leaves them, each with what it makes of random pictures (`expected.npz`). Needs `torch`,
`diffusers` and `safetensors`, in an environment of their own; the tests need none of them.

    python tests/data/make_diffusers.py

An `expected.npz` holds pictures `x`, times `t` (not all of them steps) and weights `c`; the output
`out` and the gradient of `sum(c * out)` in `x`, both in `float32` and in `float64`; for a chain,
what its scheduler takes for the clean pictures (`clean`) at the steps `k`.

diffusers computes the features of the time in `float32` whatever the dtype of the network is. For
the `float64` reference they are computed in `float64`.
"""

import json
import math
import shutil
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.models import embeddings
from safetensors.torch import load_file, save_file

OUT = Path(__file__).resolve().parent / "diffusers"
WEIGHTS = "diffusion_pytorch_model.safetensors"
ODD_BATCH = 3

CASES = {
    # as the first public models of DDPM
    "ddpm": {
        "sample_size": 8,
        "block_out_channels": (4, 8, 8),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "norm_num_groups": 2,
        "attention_head_dim": None,
    },
    # as diffusers makes them now
    "heads": {
        "sample_size": 4,
        "block_out_channels": (4, 8),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "act_fn": "swish",
    },
    "scale_shift": {
        "sample_size": 4,
        "block_out_channels": (4, 8),
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "resnet_time_scale_shift": "scale_shift",
        "attention_head_dim": 3,
        "time_embedding_dim": 10,
    },
    "resnet": {
        "sample_size": 4,
        "block_out_channels": (4, 4),
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 2,
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "attention_head_dim": 2,
    },
    "classes": {
        "sample_size": 4,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (4, 4),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "add_attention": False,
        "num_class_embeds": 3,
        "act_fn": "relu",
    },
    "timestep_class": {
        "sample_size": (4, 8),
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (4, 4),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "attention_head_dim": None,
        "class_embed_type": "timestep",
        "center_input_sample": True,
        "act_fn": "gelu",
        "mid_block_scale_factor": 1.5,
    },
    "identity_class": {
        "sample_size": 4,
        "in_channels": 1,
        "out_channels": 2,
        "block_out_channels": (5,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "layers_per_block": 1,
        "norm_num_groups": 5,
        "class_embed_type": "identity",
        "mid_block_type": None,
        "act_fn": "mish",
    },
    "ncsnpp": {
        "sample_size": 8,
        "block_out_channels": (4, 8, 8),
        "down_block_types": ("SkipDownBlock2D", "SkipDownBlock2D", "SkipDownBlock2D"),
        "up_block_types": ("SkipUpBlock2D", "SkipUpBlock2D", "SkipUpBlock2D"),
        "layers_per_block": 1,
        "time_embedding_type": "fourier",
        "norm_eps": 1e-6,
        "norm_num_groups": None,
        "attention_head_dim": None,
        "mid_block_scale_factor": math.sqrt(2),
    },
    # Attention in skip blocks has 32 groups, so 32 channels.
    "ncsnpp_attention": {
        "sample_size": 4,
        "block_out_channels": (32,),
        "down_block_types": ("AttnSkipDownBlock2D",),
        "up_block_types": ("AttnSkipUpBlock2D",),
        "layers_per_block": 1,
        "time_embedding_type": "fourier",
        "time_embedding_dim": 8,
        "norm_num_groups": None,
        "attention_head_dim": None,
        "mid_block_type": None,
    },
}
LABELS = {"classes": 2, "timestep_class": 7.0, "identity_class": np.linspace(-1, 1, 20)}
HALF = {"heads", "ncsnpp", "ncsnpp_attention"}
VE = diffusers.ScoreSdeVeScheduler
CHAIN = diffusers.DDIMScheduler
SCHEDULERS = {
    "ddpm": diffusers.DDPMScheduler(clip_sample=False),
    "heads": CHAIN(clip_sample=False, beta_schedule="squaredcos_cap_v2", num_train_timesteps=50),
    "scale_shift": CHAIN(clip_sample=False, prediction_type="v_prediction"),
    "resnet": CHAIN(clip_sample=False, prediction_type="sample", beta_schedule="scaled_linear"),
    "classes": CHAIN(
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    ),
    "timestep_class": CHAIN(clip_sample=False, trained_betas=[0.01, 0.03, 0.02, 0.5, 0.1]),
    "identity_class": diffusers.DDPMScheduler(
        clip_sample=False, variance_type="learned_range", beta_schedule="sigmoid"
    ),
    "ncsnpp": VE(sigma_max=100.0),
    "ncsnpp_attention": VE(sigma_min=0.02, sigma_max=50.0),
}
OLD_NAMES = {
    ".to_q.": ".query.",
    ".to_k.": ".key.",
    ".to_v.": ".value.",
    ".to_out.0.": ".proj_attn.",
}


def features_float64(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1, **_):
    half = embedding_dim // 2
    exponent = -math.log(10_000) * torch.arange(half, dtype=torch.float64)
    angle = timesteps[:, None].double() * torch.exp(exponent / (half - downscale_freq_shift))
    parts = [torch.cos(angle), torch.sin(angle)] if flip_sin_to_cos else [angle.sin(), angle.cos()]
    return torch.cat([*parts, torch.zeros(len(angle), embedding_dim % 2, dtype=torch.float64)], -1)


def label_of(name, dtype):
    label = LABELS.get(name)
    if label is None:
        return None
    kind = torch.long if isinstance(label, int) else dtype
    label = torch.as_tensor(label, dtype=kind)
    return label.expand(ODD_BATCH, *label.shape)


def evaluate(name, network, x, t, c, dtype):
    """The output and the gradient of `sum(c * out)`."""
    network = network.to(dtype)
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    time = torch.tensor(t, dtype=dtype)
    out = network(x, time, class_labels=label_of(name, dtype)).sample
    (torch.tensor(c, dtype=dtype) * out).sum().backward()
    return out.detach().numpy(), x.grad.numpy()


def make(name):
    config = CASES[name]
    torch.manual_seed(sorted(CASES).index(name))
    network = diffusers.UNet2DModel(**config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # Not 1 and 0 in the norms, which would hide what they do.
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            parameter.copy_(parameter.half().float() if name in HALF else parameter)
    folder = OUT / name
    network.save_pretrained(folder)
    if name in HALF:
        weights = load_file(folder / WEIGHTS)
        save_file({k: v.half() for k, v in weights.items()}, folder / WEIGHTS)
    scheduler = SCHEDULERS[name]
    scheduler.save_pretrained(folder)

    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(0)
    shape = (ODD_BATCH, config.get("in_channels", 3), height, width)
    x = rng.normal(size=shape).astype(np.float32)
    c = rng.normal(size=(ODD_BATCH, config.get("out_channels", 3), height, width))
    c = c.astype(np.float32)
    fourier = config.get("time_embedding_type") == "fourier"
    t = np.array([0.05, 1.7, 40.0] if fourier else [0.0, 2.5, 999.0], np.float32)
    found = {"x": x, "t": t, "c": c}
    found["out32"], found["grad32"] = evaluate(name, network, x, t, c, torch.float32)
    if not fourier:
        found |= clean_pictures(name, network.float(), scheduler, x)
    keep, embeddings.get_timestep_embedding = embeddings.get_timestep_embedding, features_float64
    found["out64"], found["grad64"] = evaluate(name, network, x, t, c, torch.float64)
    embeddings.get_timestep_embedding = keep
    # Channels last, as the tests have them.
    for key in ("x", "c", "out32", "grad32", "out64", "grad64", "clean"):
        if key in found:
            found[key] = np.ascontiguousarray(found[key].transpose(0, 2, 3, 1))
    np.savez_compressed(folder / "expected.npz", **found)


def clean_pictures(name, network, scheduler, x):
    """What the scheduler takes for the clean pictures at some steps, and its alphas."""
    number = len(scheduler.alphas_cumprod)
    scheduler.set_timesteps(number)
    steps = np.array([0, number // 2, number - 2])
    clean = []
    label = label_of(name, torch.float32)
    for k, point in zip(steps, torch.tensor(x), strict=True):
        one = None if label is None else label[:1]
        with torch.no_grad():
            out = network(point[None], torch.tensor([float(k)]), class_labels=one).sample
        clean.append(scheduler.step(out, int(k), point[None]).pred_original_sample[0].numpy())
    alphas = scheduler.alphas_cumprod.numpy()
    return {"clean": np.stack(clean), "k": steps, "alphas_cumprod": alphas[:: max(number // 50, 1)]}


def make_old_names():
    """A pipeline's folder, the attention's weights under the names of old versions."""
    weights = load_file(OUT / "resnet" / WEIGHTS)
    for new, old in OLD_NAMES.items():
        weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
    folder = OUT / "old_pipeline"
    for part, file in (("unet", "config.json"), ("scheduler", "scheduler_config.json")):
        (folder / part).mkdir(parents=True)
        shutil.copy(OUT / "resnet" / file, folder / part / file)
    save_file(weights, folder / "unet" / WEIGHTS)
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": "0.1.1",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    for name in CASES:
        make(name)
    make_old_names()
