# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The energy of `examples/digits_deblurring.py`, trained once, and what is drawn from it."""

from pathlib import Path

import numpy as np
from jax import random

import numpyro_scores as ns
from examples.digits_deblurring import load_pictures, make_energy, prior_of, train_energy
from numpyro_scores.diagnostics import LevelNormalizers, level_normalizers

FOLDER = Path(".cache/digit_energy")
NUM_STEPS = 4_000


def digit_prior(num_steps: int = NUM_STEPS, seed: int = 0) -> ns.DiffusionPrior:
    """That of the demo, whose weights are kept: the next run has them at once."""
    pictures, _ = load_pictures(seed)
    path = FOLDER / f"{num_steps}-steps-seed-{seed}.safetensors"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        ns.save_weights(path, train_energy(pictures, num_steps, seed))
    return prior_of(ns.load_weights(path, make_energy(pictures, seed)), pictures)


def digit_normalizers(
    num_steps: int = NUM_STEPS, seed: int = 0, num_levels: int = 100, num_moves: int = 2
) -> LevelNormalizers:
    """log Z of its levels, and particles of its smallest level; kept likewise."""
    path = FOLDER / f"{num_steps}-steps-seed-{seed}-levels-{num_levels}-moves-{num_moves}.npz"
    if not path.exists():
        prior = digit_prior(num_steps, seed)
        found = level_normalizers(
            prior, random.key(seed), num_levels=num_levels, num_moves=num_moves
        )
        np.savez(path, **{name: np.asarray(value) for name, value in found._asdict().items()})
    with np.load(path) as file:
        return LevelNormalizers(**file)
