# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How often 90% intervals of `TemperedSMC` hold the truth under a learned prior: for pictures drawn
from the prior itself, where it is 90% if the sampler is right, and for pictures held out in
training, where the prior counts too. All data share their draws of the prior.

Draws of the prior are those of `prior.sample`, by the probability flow; with `--settled` many steps
of Langevin dynamics follow, at the smallest noise level, to where the score has them stay, as the
moves of `TemperedSMC` do. Of an exact denoiser both are draws of one density; of a learned one they
are not.

The prior, the blur and the missing quarter are those of `examples/digits_deblurring.py`, the noise
of 0.1 is known.

Printed are the share of the pixels inside with its standard error over pictures, the root mean
square of `(truth - mean) / sd`, and how many draws of the prior are ancestors of the posterior's.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, lax, random

import numpyro_scores as ns
from examples.digits_deblurring import NOISE, blur, load_pictures, train_prior
from numpyro_scores.integrators import euler_maruyama


class Problem(NamedTuple):
    """
    - **prior** - learned.
    - **model** - of a measurement, whose arguments are `observed` and `y`.
    - **held_out** - pictures that the prior has not seen.
    - **observed** - which pixels of each picture are measured.
    - **draws** - of the prior, for `TemperedSMC`.
    """

    prior: ns.DiffusionPrior
    model: Callable
    held_out: np.ndarray
    observed: np.ndarray
    draws: Array


def digits(args: argparse.Namespace) -> Problem:
    pictures, held_out = load_pictures(0)
    prior = train_prior(pictures, args.num_steps, 0)

    def model(observed, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(blur(x), NOISE).mask(observed).to_event(2), obs=y)

    rng = np.random.default_rng(0)
    num = args.first + args.num_pictures
    lost = [rng.permutation(64).reshape(8, 8) < 16 for _ in range(num)][args.first :]
    draws = jnp.asarray(many_draws(prior, random.key(0), args.num_prior_draws, args.settled))
    return Problem(prior, model, held_out, ~np.asarray(lost), draws)


def many_draws(prior: ns.DiffusionPrior, key: Array, num: int, num_steps: int) -> np.ndarray:
    """Draws of the prior, and `num_steps` Langevin steps of a twentieth of the noise variance."""

    @jax.jit
    def draw(key):
        key_sample, key_steps = random.split(key)
        x = prior.sample(key_sample, (50,))

        def step(x, key):
            noise = random.normal(key, x.shape)
            h = 0.05 * jnp.asarray(prior.sigma) ** 2
            return euler_maruyama(x, -prior.score(x), h, noise), None

        return lax.scan(step, x, random.split(key_steps, num_steps))[0]

    # As many as fit into the caches at a time.
    return np.concatenate([draw(key) for key in random.split(key, -(-num // 50))])[:num]


def judge(name: str, problem: Problem, pictures: np.ndarray, args: argparse.Namespace) -> None:
    smc = ns.TemperedSMC(
        problem.model,
        args.num_particles,
        num_prior_draws=len(problem.draws),
        dense_mass=True,
        num_steps=args.num_moves,
        progress_bar=False,
    )
    start = time.perf_counter()
    all_draws, ancestors = [], []
    for i, (truth, seen) in enumerate(zip(pictures, problem.observed, strict=True), args.first):
        key_data, key_run = random.split(random.fold_in(random.key(1), i))
        simulated = numpyro.handlers.seed(problem.model, key_data)
        simulated = numpyro.handlers.substitute(simulated, data={"x": jnp.asarray(truth)})
        y = numpyro.handlers.trace(simulated).get_trace(seen)["y"]["value"]
        smc.run(key_run, seen, y=y, prior_draws={"x": problem.draws})
        all_draws.append(np.asarray(smc.get_samples()["x"]))
        statistics: Any = smc.statistics
        ancestors.append(int(statistics["num_ancestors"]))
    draws = np.stack(all_draws)
    found = ns.diagnostics.coverage(draws, pictures, key=random.key(0), levels=(0.9,))
    outside = (1 - found.levels[0]) / 2 * (draws.shape[1] + 1)
    inside = (found.ranks >= outside) & (found.ranks <= draws.shape[1] - outside)
    shares = inside.reshape(len(draws), -1).mean(axis=1)
    z = (pictures - draws.mean(axis=1)) / draws.std(axis=1)
    seconds = time.perf_counter() - start
    print(
        f"{name}, {len(draws)} pictures: {100 * found.levels[0]:.1f}% intervals hold "
        f"{100 * shares.mean():.1f} +- {100 * shares.std() / np.sqrt(len(shares)):.1f}% of the "
        f"pixels, rms of (truth - mean) / sd {np.sqrt(np.mean(z**2)):.2f}; "
        f"{np.median(ancestors):.0f} ancestors, {seconds / len(draws):.1f} s a picture",
        flush=True,
    )


SETS = ["drawn", "held-out"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settled", type=int, default=0, help="Langevin steps after each draw")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--num-pictures", type=int, default=100, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--num-particles", type=int, default=1_000)
    parser.add_argument("--num-moves", type=int, default=2, help="steps of a round")
    parser.add_argument("--num-prior-draws", type=int, default=20_000)
    parser.add_argument("--num-steps", type=int, default=12_000, help="of training")
    args = parser.parse_args()
    start = time.perf_counter()
    problem = digits(args)
    print(f"a prior and its draws: {time.perf_counter() - start:.0f} s", flush=True)
    rows = slice(args.first, args.first + args.num_pictures)
    if "drawn" in args.sets:
        truth = many_draws(problem.prior, random.key(2), rows.stop, args.settled)[rows]
        judge("drawn from the prior", problem, truth, args)
    if "held-out" in args.sets:
        judge("held out", problem, problem.held_out[rows], args)


if __name__ == "__main__":
    main()
