# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Train the prior of `galaxy_scene.py`: the U-Net of a small diffusion model, on made-up galaxies, and
write it as the folder that diffusers has of one (`config.json`, `scheduler_config.json`, weights by
their names in torch), so that `ns.load_diffusers` reads it like any public model.

A galaxy is a Sersic profile of random size, ellipticity, angle and index, with two spiral arms if
it is flat, in 16 x 16 pixels of which the brightest is 1.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from safetensors.numpy import save_file

import numpyro_scores as ns
from numpyro_scores.pretrained.config import UNet2DConfig
from numpyro_scores.pretrained.unet import UNet2D

SIZE = 16
FOLDER = Path(__file__).resolve().parent / "galaxies"
PROCESS = ns.DDPM()
CONFIG: dict[str, Any] = {
    "sample_size": SIZE,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (12, 24, 32),
    "down_block_types": ("DownBlock2D",) * 3,
    "up_block_types": ("UpBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": None,
}
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}


def make_galaxies(rng: np.random.Generator, number: int) -> np.ndarray:
    """Galaxies in pixels from -1 (nothing) to 1 (the brightest), shape `(number, 16, 16, 1)`."""
    parts, radius = 3, rng.lognormal(np.log(3.0), 0.25, number)
    ratio, angle = rng.uniform(0.3, 1.0, number), rng.uniform(0.0, np.pi, number)
    index = np.exp(rng.uniform(np.log(0.6), np.log(3.0), number))
    arms = rng.uniform(0.2, 0.9, number) * (index < 1.5)
    winding, phase = rng.uniform(-4.0, 4.0, number), rng.uniform(0.0, 2 * np.pi, number)
    radius, ratio, angle, index, arms, winding, phase = (
        a[:, None, None] for a in (radius, ratio, angle, index, arms, winding, phase)
    )
    # Each pixel is the mean over 3 x 3 points in it.
    places = (np.arange(parts * SIZE) + 0.5) / parts - SIZE / 2
    x, y = places[None, :], places[:, None]
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    across = across / ratio
    distance = np.hypot(along, across) * np.sqrt(ratio) / radius + 0.05
    # Half of the light is within `radius` (Ciotti & Bertin 1999, to first order).
    light = np.exp(-(2 * index - 1 / 3) * distance ** (1 / index))
    turn = np.arctan2(across, along) - winding * np.log(distance)
    light = light * (1 + arms * np.minimum(distance, 1) * np.cos(2 * turn + phase))
    pixels = light.reshape(number, SIZE, parts, SIZE, parts).mean((2, 4))
    pixels /= pixels.max((1, 2), keepdims=True)
    return (2 * pixels - 1)[..., None].astype(np.float32)


class NewTensors:
    """
    Weights of a network that has not been trained, by their names in torch, in place of a file.

    :param fill: what a tensor of a name and a shape holds.
    """

    def __init__(self, fill):
        self.fill, self.names = fill, []

    def take(self, name, shape):
        self.names.append(name)
        return self.fill(len(self.names) - 1, name, shape).astype(np.float32)


def make_network(fill) -> tuple[UNet2D, list[str]]:
    tensors: Any = NewTensors(fill)
    return UNet2D(UNet2DConfig(**CONFIG), tensors, (SIZE, SIZE, 1)), tensors.names


def untrained(seed: int) -> UNet2D:
    """He's initial weights, and zeros in the last layer."""
    rng = np.random.default_rng(seed)

    def fill(_, name, shape):
        if len(shape) == 1:
            return np.full(shape, float("norm" in name and name.endswith("weight")))
        scale = 0.0 if name.startswith("conv_out") else np.prod(shape[1:]) ** -0.5
        return scale * rng.standard_normal(shape)

    return make_network(fill)[0]


def by_name(network: UNet2D) -> dict[str, np.ndarray]:
    """The weights by their names in torch, with the axes as torch orders them."""
    # A network whose weights are the number of their name tells which weight is which.
    numbers, names = make_network(lambda number, _, shape: np.full(shape, number))
    as_in_torch = {1: lambda w: w, 2: np.transpose, 4: lambda w: w.transpose(3, 2, 0, 1)}
    found = {}
    for number, weight in zip(*map(jax.tree.leaves, (numbers, network)), strict=True):
        weight = as_in_torch[weight.ndim](np.asarray(weight, np.float16))
        found[names[int(number.ravel()[0])]] = np.ascontiguousarray(weight)
    return found


def write_folder(network: UNet2D, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "UNet2DModel", **CONFIG}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")
    save_file(by_name(network), folder / "diffusion_pytorch_model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-steps", type=int, default=3_000)
    args = parser.parse_args()
    galaxies = make_galaxies(np.random.default_rng(args.seed), 30_000)
    start = ns.processes.EpsilonPrediction(untrained(args.seed), PROCESS.step)
    fitted = ns.fit(
        start,
        ns.objectives.DenoisingScoreMatching(PROCESS, ns.objectives.ScoreWeight()),
        galaxies,
        key=random.key(args.seed),
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, args.num_steps)),
        num_steps=args.num_steps,
        batch_size=32,
        ema_decay=0.999,
        progress_bar=False,
        callbacks=[lambda progress: print(progress.step, progress, flush=True)],
    )
    write_folder(fitted.module.network, args.output)
    model = ns.load_diffusers(args.output)
    x = jnp.asarray(galaxies[:256])
    for sigma in jnp.array([0.05, 0.3, 1.0]):
        noisy = x + sigma * random.normal(random.key(1), x.shape)
        clean = jax.vmap(model.denoiser, (0, None))(noisy, sigma)
        print(f"error at noise level {sigma:.2f}: {float(((clean - x) ** 2).mean() ** 0.5):.4f}")


if __name__ == "__main__":
    main()
