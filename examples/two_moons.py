# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
A gallery: every objective for continuous data learns the two moons, with the same network.

A row each: the learned density (normalised on the grid, but for noise-contrastive estimation and
the diffusion prior, whose own normaliser is shown), the score field, and draws: of the energies by
NUTS from a NumPyro model, of the diffusion prior by its reverse process, of the generators by
generating. Beneath the name is the mean log likelihood of held-out points, in nats.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from flax import nnx
from jax import Array, random
from numpyro.infer import MCMC, NUTS
from sklearn.datasets import make_moons

import numpyro_scores as ns
from numpyro_scores import objectives

NOISE = 0.1  # of the moons
SIGMA = 0.1  # of denoising at one noise level
PROCESS = ns.VarianceExploding(sigma_min=0.02, sigma_max=5.0)
EDGES = np.linspace(-2.2, 2.2, 161)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
GRID = np.stack(np.meshgrid(CENTRES, CENTRES), -1).astype(np.float32)
CELL = (EDGES[1] - EDGES[0]) ** 2


def moons(num_points: int, seed: int) -> np.ndarray:
    """About zero, of standard deviation about one."""
    x, _ = make_moons(num_points, noise=NOISE, random_state=seed)
    return ((x - [0.5, 0.25]) / [0.87, 0.5]).astype(np.float32)


class Generator(nnx.Module):
    """It starts as the identity of the latent plane."""

    def __init__(self, rngs: nnx.Rngs, hidden_features: int = 128):
        self.first = nnx.Linear(2, hidden_features, rngs=rngs)
        self.second = nnx.Linear(hidden_features, hidden_features, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.readout = nnx.Linear(hidden_features, 2, kernel_init=zeros, rngs=rngs)

    def __call__(self, z: Array) -> Array:
        return z + self.readout(jnp.tanh(self.second(jnp.tanh(self.first(z)))))


class Pair(nnx.Module):
    """A generator and its critic; the optimizer tells them apart by these names."""

    def __init__(self, seed: int):
        self.generator = Generator(nnx.Rngs(seed))
        self.critic = energy(seed)


def energy(seed: int = 0) -> ns.nn.MLPEnergy:
    return ns.nn.MLPEnergy(2, rngs=nnx.Rngs(seed), hidden_features=128, num_layers=3)


class Row(NamedTuple):
    """
    - **objective** - what the module is trained on.
    - **module** - before its training.
    - **log_density** - of a trained module at a point, None if it has none.
    - **is_normalized** - whether that is the log density itself.
    - **draw** - of a trained module, `draw(module, key, num_draws)`.
    """

    objective: Any
    module: Any
    log_density: Callable | None
    is_normalized: bool
    draw: Callable


def minus_energy(module: Any, x: Array) -> Array:
    return -module(x)


def by_nuts(module: Any, key: Array, num_draws: int) -> Array:
    """Draws of an energy, from a NumPyro model, by chains that start at random."""

    def model() -> None:
        prior = module if hasattr(module, "log_prob") else ns.EnergyDistribution(module, 2)
        numpyro.sample("x", prior)

    mcmc = MCMC(
        NUTS(model),
        num_warmup=200,
        num_samples=num_draws // 50,
        num_chains=50,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key)
    return mcmc.get_samples()["x"]


def by_generating(module: Any, key: Array, num_draws: int) -> Array:
    return jax.vmap(module.generator)(random.normal(key, (num_draws, 2)))


def diffusion_prior(module: Any) -> ns.DiffusionPrior:
    return ns.DiffusionPrior(module, PROCESS, 2)


def rows(seed: int) -> dict[str, Row]:
    # Unadjusted steps would leave an energy that gets steep; these stay on it.
    mala = partial(ns.MALA, step_size=0.02, num_steps=20)
    noise = dist.Normal(0.0, 1.3).expand([2]).to_event(1)
    of_energies = {
        "implicit score matching": objectives.ImplicitScoreMatching(),
        "sliced score matching": objectives.SlicedScoreMatching(),
        "finite differences": objectives.FiniteDifferenceScoreMatching(),
        f"denoising at {SIGMA}": objectives.DenoisingScoreMatching(SIGMA),
        "contrastive divergence": objectives.ContrastiveDivergence(sampler=mala),
        "persistent contrastive divergence": objectives.PersistentContrastiveDivergence(
            sampler=mala, restart_prob=0.05
        ),
        "conditional noise contrast": objectives.ConditionalNoiseContrastiveEstimation(0.5),
        "energy discrepancy": objectives.EnergyDiscrepancy(0.5),
    }
    return {
        **{
            name: Row(objective, energy(seed), minus_energy, False, by_nuts)
            for name, objective in of_energies.items()
        },
        "noise contrast": Row(
            objectives.NoiseContrastiveEstimation(noise),
            ns.EnergyDistribution(energy(seed), 2, log_normalizer=jnp.array(3.0)),
            lambda module, x: module.log_prob(x),
            True,
            by_nuts,
        ),
        "denoising at all noise levels": Row(
            objectives.DenoisingScoreMatching(PROCESS),
            ns.nn.MLPDenoiser(2, rngs=nnx.Rngs(seed), hidden_features=128, num_layers=3),
            lambda module, x: diffusion_prior(module).log_prob(x),
            True,
            lambda module, key, n: diffusion_prior(module).sample(key, (n,)),
        ),
        "energy against a generator": Row(
            objectives.AdversarialLikelihood(),
            Pair(seed),
            lambda module, x: -module.critic(x),
            False,
            by_generating,
        ),
        "generator against a discriminator": Row(
            objectives.GenerativeAdversarial(2), Pair(seed), None, False, by_generating
        ),
    }


def optimizer_of(row: Row, num_steps: int) -> optax.GradientTransformation:
    if not isinstance(row.module, Pair):
        return optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))
    rates = (3e-3, 3e-4) if row.log_density else (1e-3, 1e-3)
    parts = dict(zip(("generator", "critic"), rates, strict=True))
    return optax.partition(
        {name: optax.adam(rate, b1=0.5) for name, rate in parts.items()},
        lambda params: jax.tree.map_with_path(lambda path, _: path[0].key, params),
    )


def show(axes, name: str, row: Row, module: Any, held_out: np.ndarray, key: Array) -> None:
    title = name
    if row.log_density is not None:
        log_density = partial(row.log_density, module)
        of_points = jax.jit(lambda x: jax.lax.map(log_density, x, batch_size=256))
        on_grid = np.asarray(of_points(GRID.reshape(-1, 2))).reshape(GRID.shape[:2])
        at = np.asarray(of_points(held_out))
        if not row.is_normalized:
            log_normalizer = np.logaddexp.reduce(on_grid, axis=None) + np.log(CELL)
            on_grid, at = on_grid - log_normalizer, at - log_normalizer
        title = f"{name}\n{at.mean():.2f} nats"
        print(f"{name:34} {at.mean():6.2f} nats, integral {CELL * np.exp(on_grid).sum():.3f}")
        axes[0].imshow(np.exp(on_grid), origin="lower", extent=[-2.2, 2.2] * 2, cmap="magma")
        coarse = GRID[4::8, 4::8].reshape(-1, 2)
        score = np.array(jax.vmap(jax.grad(log_density))(coarse))
        # Short arrows as they are, long ones as long as the grid allows.
        length = np.linalg.norm(score, axis=-1, keepdims=True)
        arrows = (score / np.maximum(length, 5)).T
        axes[1].quiver(*coarse.T, *arrows, scale=16, width=0.006)
    else:
        for axis in axes[:2]:
            axis.text(0, 0, "none", ha="center", va="center")
    draws = np.asarray(row.draw(module, key, 2_000))
    axes[2].plot(*draws.T, ",", color="black")
    axes[0].set_ylabel(title, fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-steps", type=int, default=2_000, help="training steps of each")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    data, held_out = moons(10_000, args.seed), moons(2_000, args.seed + 1)

    gallery = rows(args.seed)
    columns = 2  # of rows, side by side
    height = -(-len(gallery) // columns)
    figure, axes = plt.subplots(
        height, 3 * columns, figsize=(3 * 2.2 * columns, 2.2 * height), layout="constrained"
    )
    for axis in axes.flat:
        axis.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[], aspect="equal")
    for place, (name, row) in enumerate(gallery.items()):
        fitted = ns.fit(
            row.module,
            row.objective,
            data,
            key=random.key(args.seed),
            optimizer=optimizer_of(row, args.num_steps),
            num_steps=args.num_steps,
            ema_decay=0.995,
        )
        first = 3 * (place // height)
        panels = axes[place % height, first : first + 3]
        show(panels, name, row, fitted.module, held_out, random.key(args.seed + 1))
    for axis, title in zip(axes[0], ("density", "score", "draws") * columns, strict=True):
        axis.set_title(title)
    figure.savefig(args.output / "two_moons.png", dpi=90)
    print(f"\nWrote two_moons.png to {args.output}/")


if __name__ == "__main__":
    main()
