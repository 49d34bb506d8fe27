# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Two restricted Boltzmann machines learn the handwritten digits, with log Z on the way.

One has binary visible units and is trained on digits of two colours, the other continuous ones and
is trained on grey levels; both by persistent contrastive divergence. What neither gives away is how
likely the held-out digits are: that takes the normaliser, which annealed importance sampling
brackets while the training goes on. Then both make up digits, and complete the lower halves of
digits that they never saw.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array, random
from numpyro.infer import MCMC
from sklearn.datasets import load_digits
from tqdm.auto import tqdm

import numpyro_scores as ns

NUM_HIDDEN = 64
NUM_HELD_OUT = 297
BATCH_SIZE = 100
# `fit` looks up fifty times in a training, here every twenty epochs.
SHOWN_EPOCHS = (20, 60, 200, 400, 1000)
# Of a grey level that is given: so small that a completion keeps it.
TOLERANCE = 0.01


class Digits(NamedTuple):
    """Digits to train on and those held out, `(n, 64)`."""

    train: np.ndarray
    held_out: np.ndarray


def load(seed: int) -> tuple[Digits, Digits]:
    """In two colours, and in grey levels between 0 and 1."""
    rng = np.random.default_rng(seed)
    levels = rng.permutation(load_digits().data)
    # Whole numbers have no density: each is spread over the width of its level.
    grey = (levels + rng.random(levels.shape)) / 17
    two, grey = (levels > 7.5).astype(np.float32), grey.astype(np.float32)
    return split(two), split(grey)


def split(x: np.ndarray) -> Digits:
    return Digits(x[NUM_HELD_OUT:], x[:NUM_HELD_OUT])


def binary_machine(digits: Digits, key: Array) -> ns.BernoulliRBM:
    mean = np.clip(digits.train.mean(0), 0.01, 0.99)
    weights = 0.01 * random.normal(key, (64, NUM_HIDDEN))
    return ns.BernoulliRBM(weights, np.log(mean / (1 - mean)), jnp.zeros(NUM_HIDDEN))


def grey_machine(digits: Digits, key: Array) -> ns.GaussianBernoulliRBM:
    mean, scale = digits.train.mean(0), digits.train.std(0)
    weights = 0.01 * scale[:, None] * random.normal(key, (64, NUM_HIDDEN))
    return ns.GaussianBernoulliRBM(weights, mean, scale, jnp.zeros(NUM_HIDDEN))


class Progress(NamedTuple):
    """After some epochs: log Z with its bracket, and mean log likelihoods in nats a digit."""

    epoch: int
    log_normalizer: ns.LogNormalizer
    train: float
    held_out: float


def train(
    machine: Any, digits: Digits, rate: float, num_steps: int, key: Array
) -> tuple[Any, list[Progress]]:
    """
    By persistent contrastive divergence, looking at the normaliser on the way. Continuous units
    want chains of more steps and a lower rate than binary ones: with those of the latter the
    likelihood rises for 200 epochs and then falls, which only the normaliser shows.
    """
    epoch = len(digits.train) // BATCH_SIZE
    progress = []

    def look(at: ns.FitProgress) -> None:
        if at.step not in [epochs * epoch for epochs in SHOWN_EPOCHS]:
            return
        found = ns.log_normalizer(at.module, key=random.key(at.step))
        scores = [float(np.mean(at.module.log_prob(x))) - found.estimate for x in digits]
        progress.append(Progress(at.step // epoch, found, *map(float, scores)))
        last = progress[-1]
        tqdm.write(
            f"epoch {last.epoch:4d}: log Z {found.estimate:8.2f} ({found.lower:.2f} to "
            f"{found.upper:.2f}), log likelihood {last.train:7.2f}, held out {last.held_out:7.2f}"
        )

    fitted = ns.fit(
        machine,
        ns.objectives.PersistentContrastiveDivergence(BATCH_SIZE, num_steps),
        digits.train,
        key=key,
        optimizer=optax.adam(rate),
        num_steps=SHOWN_EPOCHS[-1] * epoch,
        batch_size=BATCH_SIZE,
        callbacks=[look],
    )
    return fitted.module, progress


def draw(kernel: Any, key: Array, num_chains: int, *args: Any) -> dict[str, np.ndarray]:
    """Where chains end."""
    mcmc = MCMC(
        kernel,
        num_warmup=0,
        num_samples=1,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, *args)
    return jax.device_get(mcmc.get_samples())


def of_the_visible_units(machine, observed, y):
    """Pixels that are observed, up to a small error, and others that are not."""
    v = numpyro.sample("v", machine)
    seen = dist.Bernoulli(jnp.where(jnp.asarray(v) > 0, 0.999, 0.001)).mask(observed).to_event(1)
    numpyro.sample("y", seen, obs=y)


def of_both_sides(machine, observed, y):
    v = numpyro.sample("v", machine)
    numpyro.sample("h", machine.conditional(visible=v).to_event(1))
    numpyro.sample("y", dist.Normal(v, TOLERANCE).mask(observed).to_event(1), obs=y)


def hidden_units(values, machine, observed, y):
    return machine.conditional(visible=values["v"]).to_event(1)


def visible_units(values, machine, observed, y):
    """A normal prior with the mean `mu + W h`, times a normal likelihood where there is one."""
    prior = machine.conditional(hidden=values["h"])
    precision = prior.scale**-2 + observed * TOLERANCE**-2
    mean = (prior.loc / prior.scale**2 + observed * y / TOLERANCE**2) / precision
    return dist.Normal(mean, precision**-0.5).to_event(1)


def kernel_of(model: Callable, num_steps: int) -> ns.BlockGibbs:
    """Of binary units the blocks are found, of others their conditionals are told."""
    blocks = [(["h"], hidden_units), (["v"], visible_units)] if model is of_both_sides else None
    return ns.BlockGibbs(model, blocks, num_steps=num_steps)


def show(axes, machine, model: Callable, digits: Digits, progress: list[Progress], key) -> None:
    """Digits, made-up digits, completions, and the likelihood on the way."""
    key_samples, key_completions = random.split(key)
    nothing = np.zeros(64, bool)
    made_up = draw(kernel_of(model, 2_000), key_samples, 32, machine, nothing, np.zeros(64))["v"]
    upper = np.arange(64) < 32
    rows = []
    for key_row, y in zip(random.split(key_completions, 8), digits.held_out, strict=False):
        completed = draw(kernel_of(model, 500), key_row, 3, machine, upper, y)["v"]
        rows.append([np.where(upper, y, np.nan), *completed, y])
    pictures = {
        "digits": tiles(digits.train[:32], 8),
        "made up": tiles(made_up, 8),
        "upper half, three completions, truth": tiles(np.concatenate(rows), 10),
    }
    for axis, (title, picture) in zip(axes, pictures.items(), strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set(title=title, xticks=[], yticks=[])
        axis.set_facecolor("tab:blue")
    epochs = [p.epoch for p in progress]
    axes[3].plot(epochs, [p.train for p in progress], "o-", label="train")
    axes[3].plot(epochs, [p.held_out for p in progress], "o-", label="held out")
    axes[3].set(xscale="log", xlabel="epochs", title="log likelihood, nats a digit")
    axes[3].legend(frameon=False)


def tiles(flat: np.ndarray, columns: int) -> np.ndarray:
    """Pictures in rows, with a grey frame."""
    framed = np.pad(
        np.reshape(flat, (-1, 8, 8)).astype(float), ((0, 0), (1, 1), (1, 1)), constant_values=0.5
    )
    return framed.reshape(-1, columns, 10, 10).swapaxes(1, 2).reshape(-1, 10 * columns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    two, grey = load(args.seed)
    keys = random.split(random.key(args.seed), 6)
    figure, axes = plt.subplots(2, 4, figsize=(14, 6.4), layout="constrained")

    print("Binary visible units:")
    machine, progress = train(binary_machine(two, keys[0]), two, 2e-3, 2, keys[1])
    show(axes[0], machine, of_the_visible_units, two, progress, keys[2])

    print("Continuous visible units:")
    machine, progress = train(grey_machine(grey, keys[3]), grey, 3e-4, 10, keys[4])
    show(axes[1], machine, of_both_sides, grey, progress, keys[5])
    figure.savefig(args.output / "rbm.png", dpi=150)
    print(f"\nWrote rbm.png to {args.output}/")


if __name__ == "__main__":
    main()
