# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How good are the digits that the U-Net of `mnist_unet.py` makes up?

Sets of 250 pictures are compared with 250 digits that no network was trained on: other such digits,
which say what a perfect sampler would get; the digits of the U-Net; draws of a normal distribution
with the mean and the covariance of all digits; blurred digits; ones, twos and threes alone.
Features are the hidden units of a classifier that is trained here on the same 4,500 digits; the
inception score is that of its classes.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from jax import random
from mnist_unet import Digits, learned_prior, load, tiles

import numpyro_scores as ns
from numpyro_scores.diagnostics import (
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)

SIZE = 250


class Classifier(nnx.Module):
    """The logits of the ten digits."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(28 * 28, 64, rngs=rngs)
        self.readout = nnx.Linear(64, 10, rngs=rngs)

    def features(self, x):
        return jax.nn.gelu(self.hidden(x.reshape(-1)))

    def __call__(self, x):
        return self.readout(self.features(x))


def cross_entropy(module, batch, *, key):
    # Noise in the pictures, or 4,500 of them are learned by heart.
    x = batch["x"] + 0.5 * random.normal(key, batch["x"].shape)
    logits = jax.vmap(module)(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


def train_classifier(train: Digits, seed: int) -> Classifier:
    return ns.fit(
        Classifier(nnx.Rngs(seed)),
        cross_entropy,
        {"x": train.pictures, "label": train.labels},
        key=random.key(seed),
        num_steps=3_000,
    ).module


def gaussian(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1)
    draws = rng.multivariate_normal(flat.mean(0), np.cov(flat.T), SIZE, method="eigh")
    return draws.reshape(SIZE, 28, 28).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)

    train, held_out = load(0)  # those of the weights
    classifier = train_classifier(train, args.seed)
    right = np.argmax(jax.vmap(classifier)(held_out.pictures), axis=1) == held_out.labels
    print(f"The classifier is right about {np.mean(right):.1%} of the digits held out.")

    prior = learned_prior(train, sampler=ns.Heun(num_steps=18))
    start = time.perf_counter()
    made_up = np.asarray(jax.jit(lambda key: prior.sample(key, (SIZE,)))(random.key(args.seed)))
    print(f"{SIZE} digits made up in {time.perf_counter() - start:.0f} s\n")

    real = held_out.pictures[:SIZE]
    blur = ns.inverse.Blur(ns.inverse.gaussian_kernel(1.0, radius=3), (28, 28))
    few = train.pictures[np.isin(train.labels, [1, 2, 3])][:SIZE]
    sets = {
        "other digits": held_out.pictures[SIZE:],
        "U-Net": made_up,
        "normal": gaussian(train.pictures, rng),
        "blurred": np.asarray(blur(held_out.pictures[SIZE:])),
        "1, 2 and 3 alone": few,
    }
    figure, axes = plt.subplots(1, len(sets), figsize=(3 * len(sets), 4.7), layout="constrained")
    for axis, (name, pictures) in zip(axes, sets.items(), strict=True):
        caption = compare(real, pictures, classifier)
        print(f"{name}:\n{caption}\n", flush=True)
        axis.imshow(tiles(pictures[:36], 6), cmap="gray", vmin=-1, vmax=1)
        axis.set(title=name, xticks=[], yticks=[])
        axis.set_xlabel(caption, loc="left", fontsize=9)
    figure.savefig(args.output / "sample_quality.png", dpi=80)
    print(f"Wrote sample_quality.png to {args.output}/")


def compare(real: Any, pictures: Any, classifier: Classifier) -> str:
    features = classifier.features
    real, pictures = jnp.asarray(real), jnp.asarray(pictures)
    distance = kernel_distance(real, pictures, features)
    quality = precision_recall(real, pictures, features)
    spread = density_coverage(real, pictures, features)
    score = inception_score(pictures, classifier)
    return (
        f"Frechet distance {frechet_distance(real, pictures, features).statistic:.1f}\n"
        f"kernel distance {distance.value:.2f} +- {distance.standard_error:.2f}\n"
        f"precision {quality.precision:.2f}, recall {quality.recall:.2f}\n"
        f"density {spread.density:.2f}, coverage {spread.coverage:.2f}\n"
        f"inception score {score.score:.1f}\n"
        f"(sharpness {score.sharpness:.2f}, classes {score.diversity:.1f})"
    )


if __name__ == "__main__":
    main()
