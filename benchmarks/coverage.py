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

- `--prior digits`: a denoiser of the digits, the blur and the missing quarter of
  `examples/digits_deblurring.py`, with noise of 0.1.
- `--prior mnist`: the U-Net of `examples/mnist_unet.py`, and of `examples/mnist_posteriors.py` the
  digits without their lower part, with much more noise: so many draws of the prior as there is
  time for must do, and not too few of them be ancestors of the posterior's.

The noise is known. Printed are the share of the pixels inside with its standard error over
pictures, the same of the pixels that the posterior is uncertain of, the root mean square of
`(truth - mean) / sd`, and how many draws of the prior are ancestors of the posterior's.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, lax, random

import numpyro_scores as ns
from benchmarks._digit_denoiser import train_denoiser
from examples import mnist_unet
from examples.digits_deblurring import NOISE, blur, load_pictures
from numpyro_scores.integrators import euler_maruyama

BATCH_SIZE = 50  # as many pictures as fit into the caches
UNCERTAIN = 0.1  # least posterior standard deviation of such a pixel


class Problem(NamedTuple):
    """
    - **prior** - learned.
    - **model** - of a measurement, whose arguments are `observed` and `y`.
    - **held_out** - pictures that the prior has not seen.
    - **observed** - which pixels of each picture are measured.
    """

    prior: ns.DiffusionPrior
    model: Callable
    held_out: np.ndarray
    observed: np.ndarray


def model_of(prior: ns.DiffusionPrior, operator: Callable, noise: float) -> Callable:
    def model(observed, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(operator(x), noise).mask(observed).to_event(2), obs=y)

    return model


def digits(args: argparse.Namespace) -> Problem:
    pictures, held_out = load_pictures(0)
    prior = train_denoiser(pictures, args.num_steps, 0)
    rng = np.random.default_rng(0)
    lost = [rng.permutation(64).reshape(8, 8) < 16 for _ in held_out]
    return Problem(prior, model_of(prior, blur, NOISE), held_out, ~np.asarray(lost))


def mnist(args: argparse.Namespace) -> Problem:
    train, (held_out, _) = mnist_unet.load(0)
    prior = mnist_unet.learned_prior(train, sampler=ns.Multistep(num_steps=18))
    # Draws of the prior have the noise of its smallest level too, by which a pixel of the plain
    # background differs from another.
    noise = np.random.default_rng(0).standard_normal(held_out.shape)
    held_out = held_out + (prior.sigma * noise).astype(held_out.dtype)
    upper = np.broadcast_to(np.arange(28)[:, None] < 13, held_out.shape)
    return Problem(prior, model_of(prior, lambda x: x, args.noise), held_out, upper)


def draws_of_prior(prior: ns.DiffusionPrior, key: Array, num: int, num_steps: int) -> np.ndarray:
    """Draws of the prior, and `num_steps` Langevin steps of a twentieth of the noise variance."""

    @jax.jit
    def draw(key):
        key_sample, key_steps = random.split(key)
        x = prior.sample(key_sample, (BATCH_SIZE,))

        def step(x, key):
            noise = random.normal(key, x.shape)
            h = 0.05 * jnp.asarray(prior.sigma) ** 2
            return euler_maruyama(x, -prior.score(x), h, noise), None

        return lax.scan(step, x, random.split(key_steps, num_steps))[0]

    return np.concatenate([draw(key) for key in random.split(key, -(-num // BATCH_SIZE))])[:num]


def kept(file: Path | None, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What a file holds, or else what is made and then written to it."""
    if file is not None and file.exists():
        return np.load(file)
    made = make()
    if file is not None:
        np.save(file, made)
    return made


def judge(
    name: str, problem: Problem, pictures: np.ndarray, draws: Array, args: argparse.Namespace
) -> None:
    smc = ns.TemperedSMC(
        problem.model,
        args.num_particles,
        num_prior_draws=len(draws),
        num_steps=args.num_moves,
        batch_size=BATCH_SIZE,
        progress_bar=False,
    )
    start = time.perf_counter()
    all_draws, ancestors = [], []
    rows = slice(args.first, args.first + len(pictures))
    for i, (truth, seen) in enumerate(
        zip(pictures, problem.observed[rows], strict=True), rows.start
    ):
        key_data, key_run = random.split(random.fold_in(random.key(1), i))
        simulated = numpyro.handlers.seed(problem.model, key_data)
        simulated = numpyro.handlers.substitute(simulated, data={"x": jnp.asarray(truth)})
        y = numpyro.handlers.trace(simulated).get_trace(seen)["y"]["value"]
        smc.run(key_run, seen, y=y, prior_draws={"x": draws})
        all_draws.append(np.asarray(smc.get_samples()["x"]))
        statistics: Any = smc.statistics
        ancestors.append(int(statistics["num_ancestors"]))
    posterior = np.stack(all_draws)
    found = ns.diagnostics.coverage(posterior, pictures, key=random.key(0), levels=(0.9,))
    inside, sd = found.inside[0], posterior.std(axis=1)
    z = (pictures - posterior.mean(axis=1)) / sd
    seconds = (time.perf_counter() - start) / len(pictures)
    level = 100 * found.levels[0]
    print(
        f"{name}, pictures {rows.start} to {rows.stop - 1}, {level:.1f}% intervals\n"
        f"  of all pixels: {shares(inside, np.full(inside.shape, True))}\n"
        f"  of those with a posterior sd above {UNCERTAIN}: {shares(inside, sd > UNCERTAIN)}\n"
        f"  rms of (truth - mean) / sd {np.sqrt(np.mean(z**2)):.2f}; "
        f"ancestors {ancestors}, {seconds:.1f} s a picture",
        flush=True,
    )


def shares(inside: np.ndarray, where: np.ndarray) -> str:
    """Which percentage of the pixels is inside: mean, standard error, and that of each picture."""
    each = [100 * np.mean(x[pixels]) for x, pixels in zip(inside, where, strict=True)]
    error = np.std(each, ddof=1) / np.sqrt(len(each))
    return f"{np.mean(each):.1f} +- {error:.1f}% ({' '.join(f'{share:.1f}' for share in each)})"


PRIORS = {"digits": digits, "mnist": mnist}
SETS = ["drawn", "held-out"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", choices=PRIORS, default="digits")
    parser.add_argument("--settled", type=int, default=0, help="Langevin steps after each draw")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--num-pictures", type=int, default=100, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--num-particles", type=int, default=1_000)
    parser.add_argument("--num-moves", type=int, default=2, help="steps of a round")
    parser.add_argument("--num-prior-draws", type=int, default=20_000)
    parser.add_argument("--draws", type=Path, metavar="FILE.npy", help="keeps them for other runs")
    parser.add_argument("--num-steps", type=int, default=12_000, help="of training, of digits")
    parser.add_argument("--noise", type=float, default=4.0, help="of MNIST")
    args = parser.parse_args()
    start = time.perf_counter()
    problem = PRIORS[args.prior](args)
    sampled = partial(draws_of_prior, problem.prior, num_steps=args.settled)
    draws = kept(args.draws, lambda: sampled(random.key(0), args.num_prior_draws))
    print(f"a prior and its draws: {time.perf_counter() - start:.0f} s", flush=True)
    rows = slice(args.first, args.first + args.num_pictures)
    if "drawn" in args.sets:
        truth = sampled(random.key(2), rows.stop)[rows]
        judge("drawn from the prior", problem, truth, jnp.asarray(draws), args)
    if "held-out" in args.sets:
        judge("held out", problem, problem.held_out[rows], jnp.asarray(draws), args)


if __name__ == "__main__":
    main()
