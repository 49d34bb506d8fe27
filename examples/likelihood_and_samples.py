# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
A good likelihood does not mean good samples, nor the reverse (Theis, van den Oord & Bethge 2016, "A
note on the evaluation of generative models", section 3), on a mixture of eight normal densities:

- *noise*: 0.01 of the density and 0.99 of a wide normal one. It loses at most log 100 = 4.6 nats of
  likelihood in any dimension, and 99 of 100 samples are noise.
- *memory*: a narrow kernel about each training point. Its samples are as good as the training
  points, and the likelihood of others is terrible.

What the likelihood, its estimate by a kernel density, and tests of samples say of each; and of a
linear decoder with 20 outputs, whose likelihood is known, what bounds and estimates of it say.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, random
from jax.tree_util import Partial

import numpyro_scores as ns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANGLES = 2 * jnp.pi * jnp.arange(8) / 8
MODES = 2 * jnp.stack([jnp.cos(ANGLES), jnp.sin(ANGLES)], -1)
WIDTH, NOISE_WIDTH, MEMORY_WIDTH = 0.15, 3.0, 0.005
SHARE = 0.01
OUTPUTS, LATENTS, NOISE = 20, 3, 0.3


class Model(NamedTuple):
    log_prob: Callable[..., Any]
    draw: Callable[..., Any]


def kernels(centres: Array, width: float) -> dist.Distribution:
    """An equal mixture of normal densities."""
    parts = dist.Normal(centres, width).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(jnp.ones(len(centres)) / len(centres)), parts)


def models(training: Any) -> dict[str, Model]:
    data = kernels(MODES, WIDTH)
    memory = kernels(training, MEMORY_WIDTH)
    wide = dist.Normal(jnp.zeros(2), NOISE_WIDTH).to_event(1)
    noise = dist.MixtureGeneral(
        dist.Categorical(jnp.array([SHARE, 1 - SHARE])), [data, wide], support=data.support
    )
    return {
        name: Model(d.log_prob, lambda key, n, d=d: d.sample(key, (n,)))
        for name, d in {"the density": data, "noise": noise, "memory": memory}.items()
    }


def measure(model: Model, held_out: Any, key: Array) -> dict[str, float]:
    key_draw, key_tests = random.split(key)
    drawn = model.draw(key_draw, len(held_out))
    quality = ns.diagnostics.precision_recall(held_out, drawn)
    kernel = ns.diagnostics.kernel_density_log_likelihood(drawn, held_out)
    return {
        "log likelihood": float(jnp.mean(model.log_prob(held_out))),
        "by a kernel density": float(kernel.value),
        "precision": float(quality.precision),
        "recall": float(quality.recall),
        "rejected": rejected(held_out, drawn, key_tests),
    }


def rejected(x: Array, y: Array, key: Array) -> float:
    """Share of tests at 5% that tell two samples of 100 points apart, of ten pairs."""
    pairs = zip(
        jnp.split(x[:1_000], 10), jnp.split(y[:1_000], 10), random.split(key, 10), strict=True
    )
    values = [ns.diagnostics.mmd_test(*pair, key=key).p_value for *pair, key in pairs]
    return float(jnp.mean(jnp.stack(values) < 0.05))


def decoder_estimates(num_points: int, key: Array) -> dict[str, float]:
    """Estimates of the mean log likelihood of draws of a linear decoder, the exact one first."""
    key_weights, key_points, key_samples, *keys = random.split(key, 6)
    weights = random.normal(key_weights, (OUTPUTS, LATENTS))
    exact = dist.MultivariateNormal(0.0, weights @ weights.T + NOISE**2 * jnp.eye(OUTPUTS))
    points = exact.sample(key_points, (num_points,))
    prior = ns.GeneratorPrior(Partial(jnp.matmul, weights), LATENTS)
    precision = jnp.eye(LATENTS) + weights.T @ weights / NOISE**2

    def log_joint(z: Array, y: Array) -> Array:
        return prior.log_joint(z, y, NOISE)

    def encoder(y: Array) -> dist.Distribution:
        mean = jnp.linalg.solve(precision, weights.T @ y / NOISE**2)
        return dist.Normal(mean, 1.3 / jnp.sqrt(jnp.diagonal(precision)))

    def from_prior(y: Array) -> dist.Distribution:
        return dist.Normal(jnp.zeros(LATENTS), 1.0)

    bounds = ns.diagnostics.evidence_bounds(log_joint, encoder, points, key=keys[0])
    simple = ns.diagnostics.importance_log_likelihood(log_joint, from_prior, points, key=keys[1])
    annealed = ns.diagnostics.annealed_log_likelihood(
        log_joint, from_prior, points, key=keys[2], step_size=0.05, num_levels=400, num_draws=64
    )
    kernel = ns.diagnostics.kernel_density_log_likelihood(
        exact.sample(key_samples, (2_000,)), points
    )
    return {
        "exact": float(jnp.mean(exact.log_prob(points))),
        "evidence lower bound": float(jnp.mean(bounds.elbo)),
        "importance sampling from the encoder": float(jnp.mean(bounds.importance_weighted)),
        "importance sampling from the prior": float(jnp.mean(simple.log_likelihood)),
        "annealing from the prior": float(jnp.mean(annealed.log_likelihood)),
        "kernel density of 2,000 samples": float(kernel.value),
    }


def draw(found: dict[str, Model], rows: dict[str, dict[str, float]], key: Array) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    for axes, (name, model) in zip(figure.subplots(1, 3), found.items(), strict=True):
        x, y = model.draw(key, 1_000).T
        axes.plot(x, y, ".", markersize=2, color="#0072B2")
        row = rows[name]
        axes.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal", xticks=[], yticks=[])
        axes.set_title(
            f"{name}: {row['log likelihood']:.2f} nats\n"
            f"precision {row['precision']:.2f}, recall {row['recall']:.2f}",
            fontsize=10,
        )
    return figure


def table(rows: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(rows.values())))
    lines = ["| model |" + "".join(f" {c} |" for c in columns), "|---|" + "---|" * len(columns)]
    lines += [f"| {n} |" + "".join(f" {row[c]:.2f} |" for c in columns) for n, row in rows.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument("--num-points", type=int, default=1_000, help="of training, and held out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    key_data, key_held, key_measure, key_decoder, key_draw = random.split(
        random.key(options.seed), 5
    )
    data = kernels(MODES, WIDTH)
    training, held_out = (data.sample(k, (options.num_points,)) for k in (key_data, key_held))
    found = models(training)
    rows = {name: measure(model, held_out, key_measure) for name, model in found.items()}
    print(table(rows))
    print(f"\nThe noise may lose {-math.log(SHARE):.2f} nats, and loses", end=" ")
    print(f"{rows['the density']['log likelihood'] - rows['noise']['log likelihood']:.2f}.\n")
    for name, value in decoder_estimates(options.num_points // 10, key_decoder).items():
        print(f"{name:<40}{value:9.2f}")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "likelihood_and_samples.png"
    draw(found, rows, key_draw).savefig(path, dpi=110)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
