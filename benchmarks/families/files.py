# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The files of a run, and the order of the families in its tables."""

from pathlib import Path

NAMES = (
    "normal density",
    "autoregressive",
    "flow",
    "variational autoencoder",
    "adversarial network",
    "energy, contrastive divergence",
    "energy, noise contrast",
    "energy, variational",
    "score",
    "diffusion",
    "energy of noise levels",
)


def file_of(folder: Path, data: str, family: str) -> Path:
    """What was measured of a family; its draws are beside it, with the suffix `.npy`."""
    name = family.replace(", ", "-").replace(" ", "_")
    return folder / f"{data}-{name}.json"


def held_out_of(folder: Path, data: str) -> Path:
    """The points held out."""
    return folder / f"{data}-held_out.npy"
