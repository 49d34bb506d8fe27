# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Mode collapse of a generative adversarial network on a mixture of eight normal densities, over the
steps of its training: of a generator that learns four times as fast as its critic, without a
penalty, and of one that does not, with a penalty on the critic's slope. Recall tells them apart,
and coverage, which a few draws far from all data do not raise.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, random

import numpyro_scores as ns
from numpyro_scores.objectives import GenerativeAdversarial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANGLES = 2 * jnp.pi * jnp.arange(8) / 8
MODES = 2 * jnp.stack([jnp.cos(ANGLES), jnp.sin(ANGLES)], -1)
WIDTH, NUM_DRAWS, LATENTS = 0.1, 1_000, 2
LOOKS = (0.2, 0.4, 0.6, 1.0)  # of the training


class Setting(NamedTuple):
    """Learning rates, which fall to zero, and the penalty."""

    generator: float
    critic: float
    penalty: float


SETTINGS = {
    "fast generator,\nno penalty": Setting(2e-3, 5e-4, 0.0),
    "equal rates,\npenalty 0.1": Setting(1e-3, 1e-3, 0.1),
}


class Network(nnx.Module):
    """Two hidden layers."""

    def __init__(self, num_outputs: int, rngs: nnx.Rngs):
        self.first = nnx.Linear(2, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.readout = nnx.Linear(64, num_outputs, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.readout(jax.nn.relu(self.second(jax.nn.relu(self.first(x)))))


class Pair(nnx.Module):
    def __init__(self, seed: int):
        self.generator = Network(2, nnx.Rngs(seed))
        self._critic = Network(1, nnx.Rngs(seed + 1))

    def critic(self, x: Array) -> Array:
        return self._critic(x)[0]


def points(key: Array, num_points: int) -> Array:
    key_mode, key_noise = random.split(key)
    modes = MODES[random.randint(key_mode, (num_points,), 0, len(MODES))]
    return modes + WIDTH * random.normal(key_noise, modes.shape)


def measure(drawn: Array, held_out: Array) -> dict[str, float]:
    """Precision, recall, coverage, and modes that have a quarter of their share of the draws."""
    quality = ns.diagnostics.precision_recall(held_out, drawn)
    distances = jnp.linalg.norm(drawn[:, None] - MODES, axis=-1)
    nearest = jnp.argmin(distances, 1)[jnp.min(distances, 1) < 4 * WIDTH]
    shares = np.bincount(np.asarray(nearest), minlength=len(MODES)) / len(drawn)
    return {
        "precision": float(quality.precision),
        "recall": float(quality.recall),
        "coverage": float(ns.diagnostics.density_coverage(held_out, drawn).coverage),
        "modes": int(np.sum(shares > 1 / (4 * len(MODES)))),
    }


def train(setting: Setting, num_steps: int, seed: int) -> list[tuple[int, Array, dict]]:
    """Steps, draws and what is measured of them, at each look."""
    key_data, key_held, key_draw = (random.key(seed + i) for i in range(3))
    data, held_out = points(key_data, 20_000), points(key_held, NUM_DRAWS)
    z = random.normal(key_draw, (NUM_DRAWS, LATENTS))
    found = []

    def look(progress: ns.FitProgress) -> None:
        if round(progress.step / num_steps, 2) in LOOKS:
            drawn = jax.vmap(progress.module.generator)(z)
            found.append((progress.step, drawn, measure(drawn, held_out)))

    def adam(rate: float) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(rate, num_steps), b1=0.5)

    ns.fit(
        Pair(seed),
        GenerativeAdversarial(LATENTS, setting.penalty),
        data,
        key=random.key(seed),
        optimizer=optax.partition(
            {"generator": adam(setting.generator), "_critic": adam(setting.critic)},
            lambda params: jax.tree.map_with_path(lambda path, _: path[0].key, params),
        ),
        num_steps=num_steps,
        ema_decay=0.99,
        callbacks=look,
        progress_bar=False,
    )
    return found


def draw(trained: dict[str, list]) -> "Figure":
    from matplotlib.figure import Figure

    num_columns = len(next(iter(trained.values())))
    figure = Figure(figsize=(9.6, 2.8 * len(trained)), layout="constrained")
    axes = figure.subplots(len(trained), num_columns, squeeze=False)
    for row, (name, stages) in zip(axes, trained.items(), strict=True):
        for panel, (step, drawn, found) in zip(row, stages, strict=True):
            panel.plot(*MODES.T, "o", color="#D55E00", markersize=9, fillstyle="none")
            panel.plot(*np.asarray(drawn).T, ".", color="#0072B2", markersize=2)
            panel.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[])
            words = f"recall {found['recall']:.2f}, coverage {found['coverage']:.2f}"
            panel.set_title(f"{step:,} steps, {found['modes']} of 8 modes\n{words}", fontsize=9)
        row[0].set_ylabel(name)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument("--num-steps", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trained = {
        name: train(setting, options.num_steps, options.seed) for name, setting in SETTINGS.items()
    }
    for name, stages in trained.items():
        for step, _, found in stages:
            words = ", ".join(f"{measure} {value:.2f}" for measure, value in found.items())
            print(f"{' '.join(name.split())}, {step:5} steps: {words}")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "mode_collapse.png"
    draw(trained).savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
