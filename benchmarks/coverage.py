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

- `digits`: 8 x 8 pixels, the prior, the blur and the missing quarter of
  `examples/digits_deblurring.py`, noise 0.1;
- `mnist`: 28 x 28 pixels, the U-Net of `examples/mnist_unet.py`, the means of 16 squares with noise
  0.3. Its draws of the prior take minutes and are kept in a file.

Printed are the share of the pixels inside with its standard error over pictures, the root mean
square of `(truth - mean) / sd`, and how many draws of the prior are ancestors of the posterior's.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, lax, random

import numpyro_scores as ns
from numpyro_scores.integrators import euler_maruyama

EXAMPLES = Path(__file__).parents[1] / "examples"


class Problem(NamedTuple):
    """
    - **prior** - learned.
    - **model** - of a measurement, whose arguments are `known` and `y`.
    - **held_out** - pictures that the prior has not seen.
    - **known** - of each picture, what the model is told besides its data.
    - **draws** - of the prior, for `TemperedSMC`.
    - **batch_size** - how many particles the network sees at once.
    """

    prior: ns.DiffusionPrior
    model: Callable
    held_out: np.ndarray
    known: np.ndarray
    draws: Array
    batch_size: int | None


def digits(args: argparse.Namespace) -> Problem:
    from examples.digits_deblurring import NOISE, blur, load_pictures, train_prior

    pictures, held_out = load_pictures(0)
    prior = train_prior(pictures, args.num_steps, 0)

    def model(observed, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(blur(x), NOISE).mask(observed).to_event(2), obs=y)

    rng = np.random.default_rng(0)
    num = args.first + args.num_pictures
    lost = [rng.permutation(64).reshape(8, 8) < 16 for _ in range(num)][args.first :]
    draws = jnp.asarray(many_draws(prior, random.key(0), args.num_prior_draws, args.settled))
    return Problem(prior, model, held_out, ~np.asarray(lost), draws, None)


def mnist(args: argparse.Namespace) -> Problem:
    sys.path.insert(0, str(EXAMPLES))
    from mnist_unet import learned_prior, load

    train, held_out = load(0)
    prior = learned_prior(train, sampler=ns.Heun(18))

    def model(known, y=None):
        x = jnp.asarray(numpyro.sample("x", prior))
        means = x.reshape(4, 7, 4, 7).mean(axis=(1, 3))
        numpyro.sample("y", dist.Normal(means, 0.3).to_event(2), obs=y)

    if not args.draws.exists():
        np.save(args.draws, many_draws(prior, random.key(0), args.num_prior_draws, args.settled))
    draws = jnp.asarray(np.load(args.draws)[: args.num_prior_draws])
    known = np.zeros((args.num_pictures, 0))
    return Problem(prior, model, held_out.pictures, known, draws, 50)


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
        dense_mass=pictures[0].size <= 64,
        num_steps=args.num_moves,
        batch_size=problem.batch_size,
        progress_bar=False,
    )
    start = time.perf_counter()
    all_draws, ancestors = [], []
    for i, (truth, known) in enumerate(zip(pictures, problem.known, strict=True), args.first):
        key_data, key_run = random.split(random.fold_in(random.key(1), i))
        simulated = numpyro.handlers.seed(problem.model, key_data)
        simulated = numpyro.handlers.substitute(simulated, data={"x": jnp.asarray(truth)})
        y = numpyro.handlers.trace(simulated).get_trace(known)["y"]["value"]
        smc.run(key_run, known, y=y, prior_draws={"x": problem.draws})
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
PROBLEMS = {"digits": digits, "mnist": mnist}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", choices=PROBLEMS, default="digits")
    parser.add_argument("--settled", type=int, default=0, help="Langevin steps after each draw")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--num-pictures", type=int, default=100, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--num-particles", type=int, default=1_000)
    parser.add_argument("--num-moves", type=int, default=2, help="steps of a round")
    parser.add_argument("--num-prior-draws", type=int, default=20_000)
    parser.add_argument("--num-steps", type=int, default=12_000, help="of training, for digits")
    parser.add_argument("--draws", type=Path, default="mnist_draws.npy", help="file, for mnist")
    args = parser.parse_args()
    start = time.perf_counter()
    problem = PROBLEMS[args.problem](args)
    print(f"a prior and its draws: {time.perf_counter() - start:.0f} s", flush=True)
    rows = slice(args.first, args.first + args.num_pictures)
    if "drawn" in args.sets:
        truth = many_draws(problem.prior, random.key(2), rows.stop, args.settled)[rows]
        judge("drawn from the prior", problem, truth, args)
    if "held-out" in args.sets:
        judge("held out", problem, problem.held_out[rows], args)


if __name__ == "__main__":
    main()
