# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
What the energy of 28 x 28 digits costs that `examples/mnist_energy.py` has learned, and whether
its draws stay digits under steps that are exact for it.

`cost`: milliseconds of one picture, of the energy and of the denoiser. `draws`: a figure of draws
by the reverse process before and after steps of MALA at the smallest noise level.

    python -m benchmarks.mnist_energy draws --num 8
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import random

import numpyro_scores as ns
from benchmarks.energy_coverage import settled

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from mnist_energy import learned_energy_prior  # noqa: E402
from mnist_unet import learned_prior, load, tiles  # noqa: E402


def cost(num: int) -> None:
    """Medians of calls of `num` pictures at a time, one function after the other."""
    train, held_out = load(0)
    energy, denoiser = learned_energy_prior(train), learned_prior(train)
    x = jnp.asarray(held_out.pictures[:num])
    functions = {
        "denoiser": jax.jit(denoiser.denoise),
        "energy": jax.jit(energy.log_prob),
        "energy and gradient": jax.jit(jax.vmap(jax.value_and_grad(energy.log_prob))),
    }
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(12):
        for name, function in functions.items():
            start = time.process_time()
            jax.block_until_ready(function(x))
            seconds[name].append(time.process_time() - start)
    medians = {name: 1e3 * np.median(found[1:]) / num for name, found in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.1f} ms of CPU a picture, {median / medians['denoiser']:.2f}")


def truths_of(
    prior: ns.DiffusionPrior, num: int, seed: int, num_ancestral: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """
    Draws before and after the steps of :func:`settled`; made once, and then kept.

    :param num_ancestral: steps of the reverse process with its noise; 0 for the probability flow.
    """
    sampler = ns.Ancestral(num_steps=num_ancestral) if num_ancestral else None
    by = f"_ancestral_{num_ancestral}" if num_ancestral else ""
    kept = ROOT / ".cache" / f"mnist_energy_{seed}_{num}{by}.npz"
    if not kept.exists():
        key_start, key_chains = random.split(random.key(seed))
        before = np.asarray(prior.sample(key_start, (num,), sampler))
        after = settled(prior, before, key_chains)
        kept.parent.mkdir(exist_ok=True)
        np.savez(kept, before=before, after=after)
    found = np.load(kept)
    return found["before"], found["after"]


def draws(num: int, seed: int, num_ancestral: int, figure: Path) -> None:
    """A figure, and how far the steps went."""
    train, held_out = load(0)
    prior = learned_energy_prior(train)
    before, after = truths_of(prior, num, seed, num_ancestral)
    noisy = held_out.pictures[:num] + prior.sigma * np.random.default_rng(0).normal(
        size=(num, 28, 28)
    )
    values = [np.asarray(prior.log_prob(jnp.asarray(x, float))) for x in (before, after, noisy)]
    far = np.sqrt(np.mean((after - before) ** 2, axis=(1, 2)))
    for name, found in zip(("drawn", "after the steps", "held out"), values, strict=True):
        print(f"{name}: log density {found.mean():.0f} +- {found.std():.0f}")
    print(f"the steps moved pixels by {far.mean():.3f} (root mean square; {far.round(2)})")
    rows = tiles(np.concatenate([before, after]), num)
    plt.imsave(figure, np.kron(rows, np.ones((3, 3))), cmap="gray", vmin=-1, vmax=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("cost", "draws"))
    parser.add_argument("--num", type=int, default=8, help="pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--ancestral", type=int, default=0, help="steps with noise; 0 for the probability flow"
    )
    parser.add_argument("--figure", type=Path, default=Path("mnist_energy_draws.png"))
    args = parser.parse_args()
    if args.part == "cost":
        cost(args.num)
    else:
        draws(args.num, args.seed, args.ancestral, args.figure)


if __name__ == "__main__":
    main()
