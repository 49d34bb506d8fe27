# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
What the energy of 28 x 28 digits costs that `examples/mnist_energy.py` has learned, whether its
draws stay digits under steps that are exact for it, and how often 90% intervals hold pictures that
are drawn from it.

`cost`: milliseconds of one picture, of the energy and of the denoiser. `draws`: a figure of draws
by the reverse process before and after steps of MALA at the smallest noise level. `coverage`: of
in-painting, 13 rows measured with noise 0.5, truths being such draws. Each posterior is added to a
JSON file, and a run goes on after those that are there.

    python -m benchmarks.mnist_energy coverage --num 8
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random

import numpyro_scores as ns
from benchmarks.energy_coverage import UNCERTAIN, settled

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from mnist_energy import learned_energy_prior  # noqa: E402
from mnist_unet import learned_prior, load, tiles  # noqa: E402

NUM_ROWS, NOISE = 13, 0.5


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


def truths_of(prior: ns.DiffusionPrior, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws before and after the steps of :func:`settled`; made once, and then kept."""
    kept = ROOT / ".cache" / f"mnist_energy_{seed}_{num}.npz"
    if not kept.exists():
        key_start, key_chains = random.split(random.key(seed))
        before = np.asarray(prior.sample(key_start, (num,)))
        after = settled(prior, before, key_chains)
        kept.parent.mkdir(exist_ok=True)
        np.savez(kept, before=before, after=after)
    found = np.load(kept)
    return found["before"], found["after"]


def draws(num: int, seed: int, figure: Path) -> None:
    """A figure, and how far the steps went."""
    train, held_out = load(0)
    prior = learned_energy_prior(train)
    before, after = truths_of(prior, num, seed)
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


def model_of(prior: ns.DiffusionPrior) -> Any:
    def model(y: Any = None) -> None:
        x: Any = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:NUM_ROWS], NOISE).to_event(2), obs=y)

    return model


def coverage(args: Any) -> None:
    found = json.loads(args.results.read_text()) if args.results.exists() else {}
    # Of a draw 18 evaluations: 256 of them give the moments that each run asks for.
    prior = learned_energy_prior(load(0)[0], sampler=ns.Multistep(num_steps=18))
    settings = {"particles": args.num_particles, "levels": args.num_levels}
    _, truths = truths_of(prior, args.num, args.seed)
    smc = ns.NoiseLevelSMC(
        model_of(prior), args.num_particles, num_levels=args.num_levels, progress_bar=False
    )
    for i, truth in enumerate(truths):
        name = f"{args.seed}.{i}"
        if name in found:
            continue
        rng = np.random.default_rng([args.seed, i])
        y = truth[:NUM_ROWS] + NOISE * rng.normal(size=(NUM_ROWS, 28))
        start = time.process_time()
        smc.run(random.key(i), y=jnp.asarray(y, jnp.float32))
        x = np.asarray(smc.get_samples()["x"])
        ranks, uncertain = np.mean(x < truth, axis=0), x.std(axis=0) > UNCERTAIN
        inside = (ranks > 0.05) & (ranks < 0.95)
        found[name] = settings | {
            "inside": float(inside.mean()),
            "inside, uncertain": float(inside[uncertain].mean()),
            "uncertain": float(uncertain.mean()),
            "smallest ess": float(np.min(smc.rounds.ess)),
            "evaluations a draw": int(smc.num_grad_evals),
            "seconds": time.process_time() - start,
        }
        args.results.write_text(json.dumps(found, indent=1) + "\n")
        print(name, found[name], flush=True)
    summarise(found)


def summarise(found: dict[str, dict[str, float]]) -> None:
    n = len(found)
    for key in ("inside", "inside, uncertain", "smallest ess", "evaluations a draw", "seconds"):
        values = np.array([entry[key] for entry in found.values()])
        print(f"{key}: {values.mean():.3f} +- {values.std() / n**0.5:.3f} of {n}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("cost", "draws", "coverage"))
    parser.add_argument("--num", type=int, default=8, help="pictures")
    parser.add_argument("--num-particles", type=int, default=64)
    parser.add_argument("--num-levels", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/mnist_energy.json")
    parser.add_argument("--figure", type=Path, default=Path("mnist_energy_draws.png"))
    args = parser.parse_args()
    if args.part == "cost":
        cost(args.num)
    elif args.part == "draws":
        draws(args.num, args.seed, args.figure)
    else:
        coverage(args)


if __name__ == "__main__":
    main()
