# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
Seconds and memory of one evaluation of a U-Net of DDPM with random weights, and of its gradient in
the picture, and the memory of several pictures by `jax.lax.map`; with `--torch` beside the same
network of diffusers, in torch and by `from_torch`, in turns, where both packages are.

Seconds are those of the processor, of all threads together: pinned to one core they are what an
idle machine takes.

    python benchmarks/pretrained.py --size 64 --torch
    python benchmarks/pretrained.py --size 256 --dtype bfloat16 --value --repeats 1
    python benchmarks/pretrained.py --size 256 --remat
    python benchmarks/pretrained.py --size 256 --pictures 8 --repeats 0
"""

import argparse
import importlib
import resource
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_scores as ns
from numpyro_scores.pretrained.config import UNet2DConfig
from numpyro_scores.pretrained.unet import UNet2D

# By the size of a picture. That of 256 is the architecture of google/ddpm-celebahq-256.
WIDTHS = {32: (128, 256, 256, 256), 64: (128, 256, 384, 384), 256: (128, 128, 256, 256, 512, 512)}
DOWN, ATTENTION = "DownBlock2D", "AttnDownBlock2D"


class RandomTensors:
    """Small weights of any shape, in place of a file."""

    def __init__(self):
        self.rng, self.number = np.random.default_rng(0), 0

    def take(self, name, shape):
        self.number += int(np.prod(shape))
        if len(shape) == 1:
            return np.full(shape, float("norm" in name and name.endswith("weight")), np.float32)
        scale = np.prod(shape[1:]) ** -0.5
        return (scale * self.rng.standard_normal(shape)).astype(np.float32)


def fields_of(size):
    widths = WIDTHS[size]
    down = [DOWN] * len(widths)
    down[-2 if size > 32 else 1] = ATTENTION
    return {
        "sample_size": size,
        "block_out_channels": widths,
        "down_block_types": tuple(down),
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(down)),
        "layers_per_block": 2,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
    }


# XLA for CPUs would take what is computed anew for what was computed before.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def ours(network, size, names):
    options: Any = KEEP_BARRIERS if network.remat else {}
    x, t = jnp.ones((size, size, 3)), jnp.asarray(500.0)
    value = jax.jit(lambda network, x, t: network(x, t))
    gradient = jax.jit(jax.grad(lambda x, network, t: jnp.sum(network(x, t) ** 2)))
    programs = {"value": (value, (network, x, t)), "gradient": (gradient, (x, network, t))}
    runs = {}
    for name in names:
        function, args = programs[name]
        program = function.lower(*args).compile(options)
        print(f"{name}: {mebibytes(program):.0f} MiB beside the weights", flush=True)
        runs[name] = lambda p=program, a=args: jax.block_until_ready(p(*a))
    return runs


def mebibytes(program):
    """Of what a program computes on the way, beside what comes in and goes out."""
    return program.memory_analysis().temp_size_in_bytes / 2**20


def of_several(network, size, number):
    """Memory of so many pictures at once, and in turns; nothing is computed."""
    x, t = jax.ShapeDtypeStruct((number, size, size, 3), jnp.float32), jnp.asarray(500.0)
    for batch_size in (number, 1, 2):

        def values(network, x, batch_size=batch_size):
            return jax.lax.map(lambda x: network(x, t), x, batch_size=batch_size)

        program = jax.jit(values).lower(network, x).compile()
        print(f"{number} pictures, {batch_size} at once: {mebibytes(program):.0f} MiB", flush=True)


def in_torch(size):
    diffusers, torch = map(importlib.import_module, ("diffusers", "torch"))
    network = diffusers.UNet2DModel(**fields_of(size)).eval().requires_grad_(False)
    x, t = torch.ones(1, 3, size, size), torch.tensor([500.0])

    def value():
        with torch.no_grad():
            network(x, t)

    def gradient():
        point = x.clone().requires_grad_()
        torch.autograd.grad((network(point, t).sample ** 2).sum(), point)

    called = ns.from_torch(lambda x, t: network(x, t).sample, (3, size, size))
    function = jax.jit(called)
    slope = jax.jit(jax.grad(lambda x, t: jnp.sum(called(x, t) ** 2)))
    args = jnp.ones((3, size, size)), jnp.asarray(500.0)
    return {
        "torch": {"value": value, "gradient": gradient},
        "from_torch": {
            "value": lambda: jax.block_until_ready(function(*args)),
            "gradient": lambda: jax.block_until_ready(slope(*args)),
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, choices=WIDTHS, default=64)
    parser.add_argument("--dtype")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--repeats", type=int, default=5, help="0 measures memory alone")
    parser.add_argument("--value", action="store_true", help="no gradient")
    parser.add_argument("--pictures", type=int, default=0, help="for the memory of several")
    options = parser.parse_args()
    size, dtype = options.size, None if options.dtype is None else jnp.dtype(options.dtype)
    tensors: Any = RandomTensors()
    config = UNet2DConfig(**fields_of(size))
    network = UNet2D(config, tensors, (size, size, 3), dtype=dtype, remat=options.remat)
    print(f"{tensors.number / 1e6:.1f} million parameters", flush=True)
    if options.pictures:
        of_several(network, size, options.pictures)
    names = ("value",) if options.value else ("value", "gradient")
    sides = {"ours": ours(network, size, names)}
    if options.torch:
        sides |= in_torch(size)
    for name in names if options.repeats else ():
        seconds = {side: [] for side in sides}
        for i in range(options.repeats + 1):  # the first warms up
            for side, runs in sides.items():
                start = time.process_time()
                runs[name]()
                if i:
                    seconds[side].append(time.process_time() - start)
        medians = {side: float(np.median(found)) for side, found in seconds.items()}
        line = ", ".join(f"{side} {median:.3f} s" for side, median in medians.items())
        if options.torch:
            line += f", ratio {medians['ours'] / medians['torch']:.2f}"
        print(f"{name}: {line}", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
