# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
All families of models on the same data, in a file for each family and data set, from which
:mod:`benchmarks.families.table` makes the table and the picture of the page `docs/families.md`::

    python -m benchmarks.families --output families
    python -m benchmarks.families.table families

What has a file already is not made again, so that a run may be stopped and go on. Seconds are of
CPU, of training with the compilation.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax import random

from benchmarks.families import energies, latent, normalised, scores
from benchmarks.families.data import Data, load
from benchmarks.families.files import NAMES, file_of, held_out_of
from benchmarks.families.learned import Learned
from benchmarks.families.posterior import NUM_PARTICLES, posteriors
from numpyro_scores import diagnostics

FAMILIES: dict[str, Callable[[Data], Learned]] = dict(
    zip(
        NAMES,
        (
            normalised.normal,
            normalised.autoregressive,
            normalised.flow,
            latent.vae,
            latent.gan,
            energies.contrastive,
            energies.noise_contrast,
            energies.variational,
            scores.score,
            scores.diffusion,
            scores.energy_of_noise,
        ),
        strict=True,
    )
)
NUM_PROBLEMS = {"moons": 50, "digits": 20}


def quality(data: Data, drawn: Any, key) -> dict[str, float]:
    """Of as many draws as there are points held out, at most 500."""
    held_out = data.held_out[:500]
    drawn = drawn[: len(held_out)]
    test = diagnostics.classifier_two_sample_test(
        held_out,
        drawn,
        key=key,
        classifier=diagnostics.SmallNetwork(),
        num_permutations=1,  # the accuracy is what is asked for
    )
    near = diagnostics.precision_recall(held_out, drawn)
    return {
        "accuracy": float(test.accuracy),
        "precision": float(near.precision),
        "recall": float(near.recall),
    }


def measure(family: str, data: Data) -> tuple[dict, np.ndarray]:
    key_draw, key_likelihood, key_quality, key_posterior = random.split(random.key(1), 4)
    seconds = {}

    def timed(name: str, make: Callable):
        start = time.process_time()
        made = make()
        seconds[name] = time.process_time() - start
        return made

    learned = timed("training", lambda: FAMILIES[family](data))
    num_draws = max(2 * NUM_PARTICLES, len(data.held_out))
    drawn = timed("draws", lambda: np.asarray(learned.draw(key_draw, num_draws)))
    found = timed("likelihood", lambda: learned.likelihoods(key_likelihood))
    row = {
        "likelihoods": [one._asdict() for one in found],
        "quality": timed("quality", lambda: quality(data, drawn, key_quality)),
    }
    pool = drawn[: 2 * NUM_PARTICLES]
    posterior = timed(
        "posteriors",
        lambda: posteriors(learned, data, pool, key_posterior, NUM_PROBLEMS[data.name]),
    )
    return {**row, "posterior": posterior._asdict(), "seconds": seconds}, drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("families"))
    parser.add_argument("--data", nargs="+", default=["moons", "digits"])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for data in map(load, options.data):
        np.save(held_out_of(options.output, data.name), data.held_out)
        for family in options.families:
            path = file_of(options.output, data.name, family)
            if path.exists():
                continue
            row, drawn = measure(family, data)
            np.save(path.with_suffix(".npy"), drawn[:1_000].astype(np.float32))
            words = json.dumps({"family": family, "data": data.name, **row}, indent=1)
            path.write_text(words + "\n")
            print(words, flush=True)


if __name__ == "__main__":
    main()
