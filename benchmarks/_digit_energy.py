# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The energy of `examples/digits_deblurring.py`, trained once, and what is drawn from it."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import random

import numpyro_scores as ns
from examples.digits_deblurring import (
    PROCESS,
    load_pictures,
    make_energy,
    prior_of,
    train_energy,
)
from numpyro_scores.diagnostics import LevelNormalizers, level_normalizers

FOLDER = Path(".cache/digit_energy")
NUM_STEPS = 4_000


def digit_prior(level: float = PROCESS.sigma_min, seed: int = 0) -> ns.DiffusionPrior:
    """
    That of the demo, whose weights are kept: the next run has them at once.

    :param level: its smallest noise level.
    """
    pictures, _ = load_pictures(seed)
    path = FOLDER / f"{NUM_STEPS}-steps-seed-{seed}.safetensors"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        ns.save_weights(path, train_energy(pictures, NUM_STEPS, seed))
    energy = ns.load_weights(path, make_energy(pictures, seed))
    process = ns.VarianceExploding(sigma_min=level, sigma_max=PROCESS.sigma_max)
    return prior_of(energy, pictures, process)


def digit_normalizers(level: float = PROCESS.sigma_min, seed: int = 0) -> LevelNormalizers:
    """
    log Z of the levels down to this one, and particles there; kept likewise.

    :param seed: of other particles, by a run twice as long.
    """
    path = FOLDER / (f"levels-to-{level}.npz" if seed == 0 else f"levels-to-{level}-{seed}.npz")
    if not path.exists():
        num_levels = 100 if seed == 0 else 200
        found = level_normalizers(digit_prior(level), random.key(seed), num_levels=num_levels)
        arrays: dict[str, Any] = jax.device_get(found._asdict())
        np.savez(path, **arrays)
    with np.load(path) as file:
        return LevelNormalizers(**{name: file[name] for name in LevelNormalizers._fields})
