# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Every objective for continuous data on a mixture of four Gaussians in two dimensions, with the same
network, steps and batches:

- the Fisher divergence to the true score, half the mean squared error over draws of the mixture;
- the error of the log odds of the four centres, in nats (root mean square): a score alone says
  little about them where modes are far apart;
- the time of one gradient.

Then the time of a gradient of implicit (exact trace), sliced and finite-difference score matching
of an energy, from 2 to 512 dimensions, and with `--figure` a drawing of it. `--growth` is this part
alone.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from flax import nnx
from jax import Array, random

import numpyro_scores as ns
from benchmarks._timing import timed
from numpyro_scores import objectives

CENTRES = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
SCALE = 0.35
MIXTURE = dist.MixtureSameFamily(
    dist.Categorical(np.array([0.4, 0.3, 0.2, 0.1])), dist.Normal(CENTRES, SCALE).to_event(1)
)
SIGMA = 0.1
PROCESS = ns.VarianceExploding(SIGMA, 5.0)
NUM_STEPS = 2_000
BATCH = 128
DIMENSIONS = (2, 8, 32, 128, 512)


def energy(dim: int = 2) -> nnx.Module:
    return ns.nn.MLPEnergy(dim, rngs=nnx.Rngs(0), hidden_features=64, num_layers=2)


class Generator(nnx.Module):
    """One-to-one as long as the residual is flat; it starts as the identity."""

    def __init__(self):
        rngs = nnx.Rngs(1)
        self.hidden = nnx.Linear(2, 64, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.readout = nnx.Linear(64, 2, kernel_init=zeros, rngs=rngs)

    def __call__(self, z: Array) -> Array:
        return z + self.readout(jnp.tanh(self.hidden(z)))


class Pair(nnx.Module):
    def __init__(self):
        self.generator = Generator()
        self.critic = energy()


class Contestant(NamedTuple):
    """An objective, a module for it, and how the log density comes out of that."""

    objective: Any
    module: Any
    log_density: Callable[[Any, Array], Array]
    optimizer: optax.GradientTransformation


def minus_energy(module: Any, x: Array) -> Array:
    return -module(x)


def contestants() -> dict[str, Contestant]:
    noise = dist.Normal(0.0, 1.2).expand([2]).to_event(1)
    ula = partial(ns.ULA, step_size=0.01, num_steps=10)
    adam = optax.adam(optax.cosine_decay_schedule(3e-3, NUM_STEPS))
    plain = {
        "implicit, exact trace": objectives.ImplicitScoreMatching(),
        "sliced": objectives.SlicedScoreMatching(),
        "finite differences": objectives.FiniteDifferenceScoreMatching(),
        f"denoising at {SIGMA}": objectives.DenoisingScoreMatching(SIGMA),
        f"denoising at {SIGMA}, control variate": objectives.DenoisingScoreMatching(
            SIGMA, control_variate=True
        ),
        "contrastive divergence": objectives.ContrastiveDivergence(sampler=ula),
        "persistent contrastive divergence": objectives.PersistentContrastiveDivergence(
            sampler=ula, restart_prob=0.05
        ),
        "conditional noise contrast at 0.5": objectives.ConditionalNoiseContrastiveEstimation(0.5),
        "energy discrepancy at 0.5": objectives.EnergyDiscrepancy(0.5),
        "energy discrepancy at 1.5": objectives.EnergyDiscrepancy(1.5),
    }
    return {
        name: Contestant(objective, energy(), minus_energy, adam)
        for name, objective in plain.items()
    } | {
        "noise contrast": Contestant(
            objectives.NoiseContrastiveEstimation(noise),
            ns.EnergyDistribution(energy(), 2, log_normalizer=jnp.zeros(())),
            lambda module, x: module.log_prob(x),
            adam,
        ),
        "energy against a generator": Contestant(
            objectives.AdversarialLikelihood(),
            Pair(),
            lambda module, x: -module.critic(x),
            optax.partition(
                {"generator": optax.adam(3e-3, b1=0.5), "critic": optax.adam(3e-4, b1=0.5)},
                lambda params: jax.tree.map_with_path(lambda path, _: path[0].key, params),
            ),
        ),
        "denoising over a process": Contestant(
            objectives.DenoisingScoreMatching(PROCESS),
            ns.nn.MLPDenoiser(2, rngs=nnx.Rngs(0), hidden_features=64, num_layers=2),
            lambda module, x: ns.DiffusionPrior(module, PROCESS, 2).log_prob(x),
            adam,
        ),
    }


def errors(log_density: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """The Fisher divergence, and the root mean square error of the log odds of the centres."""

    def difference(x: Array) -> Array:
        return log_density(x) - MIXTURE.log_prob(x)

    slopes = jax.jit(jax.vmap(jax.grad(difference)))(x)
    return jnp.sum(slopes**2) / (2 * len(x)), jnp.std(jax.vmap(difference)(jnp.asarray(CENTRES)))


def milliseconds(objective: Any, module: Any, x: Array) -> float:
    """The time of a gradient in the module, the best of five."""
    carried = (objective.init(x, random.key(0)),) if hasattr(objective, "init") else ()

    @jax.jit
    def gradient(module, x):
        def loss(module):
            return jax.tree.leaves(objective(module, x, *carried, key=random.key(1)))[0]

        return jax.grad(loss, allow_int=True)(module)

    timed(gradient, module, x)
    return 1e3 * min(timed(gradient, module, x)[0] for _ in range(5))


def mixture() -> None:
    key_data, key_test = random.split(random.key(0))
    data, x = MIXTURE.sample(key_data, (10_000,)), MIXTURE.sample(key_test, (10_000,))
    print(f"{'objective':37} Fisher divergence  log odds  milliseconds a gradient")
    divergence, odds = errors(lambda x: jnp.zeros(()), x)
    print(f"{'none, a flat density':37} {divergence:17.3f} {odds:9.3f}")
    for name, (objective, module, log_density, optimizer) in contestants().items():
        fitted = ns.fit(
            module,
            objective,
            data,
            key=random.key(1),
            optimizer=optimizer,
            num_steps=NUM_STEPS,
            batch_size=BATCH,
            ema_decay=0.99,
            progress_bar=False,
        ).module
        divergence, odds = errors(partial(log_density, fitted), x)
        time = milliseconds(objective, module, data[:BATCH])
        print(f"{name:37} {divergence:17.3f} {odds:9.3f} {time:11.2f}", flush=True)


def growth() -> dict[str, list[float]]:
    """Milliseconds a gradient in each of the dimensions."""
    found = {}
    for name, objective in [
        ("implicit, exact trace", objectives.ImplicitScoreMatching()),
        ("sliced", objectives.SlicedScoreMatching()),
        ("finite differences", objectives.FiniteDifferenceScoreMatching()),
    ]:
        times = found[name] = [
            milliseconds(objective, energy(dim), random.normal(random.key(0), (32, dim)))
            for dim in DIMENSIONS
        ]
        columns = "".join(f"{time:10.2f}" for time in times)
        print(f"{name:23}{columns}  grows {times[-1] / times[0]:.0f} times", flush=True)
    return found


def draw(found: dict[str, list[float]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
    looks = [("#D55E00", "o"), ("#0072B2", "^"), ("#009E73", "D")]
    for (name, times), (colour, marker) in zip(found.items(), looks, strict=True):
        axis.loglog(DIMENSIONS, times, color=colour, marker=marker, label=name)
    axis.set_xticks(DIMENSIONS, [str(dim) for dim in DIMENSIONS])
    axis.minorticks_off()
    axis.set(xlabel="dimension", ylabel="milliseconds a gradient, 32 points")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--growth", action="store_true", help="only the growth with the dimension")
    parser.add_argument("--figure", type=Path, help="where to draw that, a PNG file")
    options = parser.parse_args()
    if not options.growth:
        mixture()
    print("\nmilliseconds a gradient, 32 points, d =", *DIMENSIONS)
    found = growth()
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
