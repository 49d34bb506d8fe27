# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
Write `tests/data/edm/`: for each of some tiny networks of Karras et al. (2022) the arguments that
it is made with (`config.json`), the names and shapes of its tensors (`shapes.json`), and what it
makes of random pictures (`expected.npz`), by the authors' own code. That is under a license of its
own (CC BY-NC-SA 4.0) and no part of this project: give the path of a clone of NVlabs/edm. Needs
`torch`; the tests need neither.

    python tests/data/make_edm.py CLONE

The weights are in no file: `weight_of` of `edm_weights.py` makes them of a name and a shape, here
and in the tests.

An `expected.npz` holds pictures `x`, what the network sees of a noise level `t` and weights `c`;
the output `out` and the gradient of `sum(c * out)` in `x`, both in `float32` and in `float64`; and
of the wrapper in `float32` the noise levels `sigma` and the clean pictures `clean` of `noisy`.

The authors' code computes the frequencies of the time and the attention in `float32` whatever comes
in. For the `float64` reference both are computed in `float64`.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from edm_weights import CLASS, weight_of

OUT = Path(__file__).resolve().parent / "edm"
ODD_BATCH = 3
SMALL = {"img_resolution": 8, "img_channels": 3, "model_channels": 8, "num_blocks": 1}

CASES = {
    # as the public models "vp" and "ve"
    "ddpmpp": {
        "_class_name": "EDMPrecond",
        "model_type": "SongUNet",
        **SMALL,
        "channel_mult": [1, 2],
        "attn_resolutions": [4],
        "augment_dim": 9,
        "dropout": 0.13,
        "use_fp16": True,
    },
    "ncsnpp": {
        "_class_name": "EDMPrecond",
        "model_type": "SongUNet",
        **SMALL,
        "channel_mult": [1, 2, 3],
        "attn_resolutions": [4],
        "embedding_type": "fourier",
        "channel_mult_noise": 2,
        "encoder_type": "residual",
        "resample_filter": [1, 3, 3, 1],
    },
    "skips": {
        "_class_name": "VEPrecond",
        "model_type": "SongUNet",
        **SMALL,
        "img_channels": 1,
        "channel_mult": [1, 2],
        "attn_resolutions": [8],
        "num_blocks": 2,
        "embedding_type": "fourier",
        "encoder_type": "skip",
        "decoder_type": "skip",
        "resample_filter": [1, 3, 3, 1],
        "label_dim": 3,
    },
    "residual_without_fir": {
        "_class_name": "VPPrecond",
        "model_type": "SongUNet",
        **SMALL,
        "img_channels": 2,
        "channel_mult": [2, 1],
        "channel_mult_emb": 3,
        "attn_resolutions": [],
        "encoder_type": "residual",
        "beta_d": 15.0,
    },
    "adm": {
        "_class_name": "EDMPrecond",
        "model_type": "DhariwalUNet",
        "img_resolution": 8,
        "img_channels": 3,
        "model_channels": 32,
        "channel_mult": [1, 4],
        "channel_mult_emb": 2,
        "num_blocks": 1,
        "attn_resolutions": [4, 8],
        "label_dim": 5,
        "label_dropout": 0.1,
        "sigma_data": 0.7,
    },
    "adm_iddpm": {
        "_class_name": "iDDPMPrecond",
        "model_type": "DhariwalUNet",
        **SMALL,
        "img_channels": 1,
        "channel_mult": [2, 1],
        "attn_resolutions": [],
        "augment_dim": 2,
        "M": 20,
    },
}


def in_float64(networks):
    """The same network, computed in `float64` throughout."""

    def features(self, x):
        exponent = torch.arange(self.num_channels // 2, dtype=torch.float64)
        exponent = exponent / (self.num_channels // 2 - (1 if self.endpoint else 0))
        angle = x.double()[:, None] * (1 / self.max_positions) ** exponent
        return torch.cat([angle.cos(), angle.sin()], 1)

    class Attention:
        @staticmethod
        def apply(query, key):
            return torch.softmax(query.transpose(1, 2) @ key / query.shape[1] ** 0.5, -1)

    networks.PositionalEmbedding.forward = features
    networks.AttentionOp = Attention


def evaluate(network, x, t, c, label, dtype):
    """The output and the gradient of `sum(c * out)`."""
    network = network.to(dtype)
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    label = None if label is None else label.to(dtype)
    out = network(x, torch.tensor(t, dtype=dtype), label)
    (torch.tensor(c, dtype=dtype) * out).sum().backward()
    return out.detach().numpy(), x.grad.numpy()


def make(name, networks):
    config = CASES[name]
    arguments = {k: v for k, v in config.items() if k != "_class_name"}
    wrapper = getattr(networks, config["_class_name"])(**arguments).eval()
    state = wrapper.state_dict()
    constant = {n for n in state if n.endswith("resample_filter") or n == "u"}
    for key in state:
        if key not in constant:
            state[key].copy_(torch.from_numpy(weight_of(key, state[key].shape)))
    folder = OUT / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    shapes = {k: v.tolist() if k in constant else list(v.shape) for k, v in state.items()}
    (folder / "shapes.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")

    rng = np.random.RandomState(0)
    size, channels = config["img_resolution"], config["img_channels"]
    out_channels = 2 * channels if config["_class_name"] == "iDDPMPrecond" else channels
    x = rng.normal(size=(ODD_BATCH, channels, size, size)).astype(np.float32)
    c = rng.normal(size=(ODD_BATCH, out_channels, size, size)).astype(np.float32)
    steps = config["_class_name"] in ("VPPrecond", "iDDPMPrecond")
    t = np.array([0.0, 2.5, 999.0] if steps else [-1.5, 0.1, 1.2], np.float32)
    label = None
    if "label_dim" in config:
        label = torch.eye(config["label_dim"])[[CLASS]].expand(ODD_BATCH, -1)
    found = {"x": x, "t": t, "c": c}
    found["out32"], found["grad32"] = evaluate(wrapper.model, x, t, c, label, torch.float32)

    sigma = np.array([0.05, 1.3, 40.0], np.float32)
    if config["_class_name"] == "iDDPMPrecond":  # at levels of its table
        sigma = wrapper.u.numpy()[[19, 10, 1]]
    found |= {"sigma": sigma, "noisy": x * np.sqrt(0.25 + sigma**2)[:, None, None, None]}
    with torch.no_grad():
        noisy = torch.tensor(found["noisy"])
        found["clean"] = wrapper.float()(noisy, torch.tensor(sigma), label).numpy()
        if config.get("label_dropout"):
            found["clean_without_class"] = wrapper(noisy, torch.tensor(sigma)).numpy()

    in_float64(networks)
    found["out64"], found["grad64"] = evaluate(wrapper.model, x, t, c, label, torch.float64)
    # Channels last, as the tests have them.
    for key, value in found.items():
        if value.ndim == 4:
            found[key] = np.ascontiguousarray(value.transpose(0, 2, 3, 1))
    np.savez_compressed(folder / "expected.npz", **found)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    import importlib

    networks = importlib.import_module("training.networks")
    shutil.rmtree(OUT, ignore_errors=True)
    features, attention = networks.PositionalEmbedding.forward, networks.AttentionOp
    for name in CASES:
        networks.PositionalEmbedding.forward, networks.AttentionOp = features, attention
        make(name, networks)
