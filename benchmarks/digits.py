# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How far the posterior of `examples/digits_deblurring.py` can be trusted: its error against the
Wiener filter's, the coverage of its 90% intervals, how often the true noise scale lies in its own,
and how many nats the log likelihood of its draws lies below the truth's, over held-out digits.

Many posteriors of one model are drawn faster by `NoiseLevelSMC` than by the chains of the example,
and both are exact. With `--annealed` the prior is a denoiser and the draws are anneals; then the
two ways to the log density of a denoiser are compared, too.

Each digit becomes a line of a file in `.cache/digit_energy`: a run that was cut goes on.
"""

import argparse
import time
from functools import partial

import jax
import numpy as np
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns
from benchmarks._digit_denoiser import annealed_kernel, train_denoiser
from benchmarks._digit_energy import FOLDER, digit_prior
from benchmarks._rows import Rows
from benchmarks.energy_coverage import particles
from examples.digits_deblurring import (
    NOISE,
    load_pictures,
    make_model,
    measure,
    misfit,
    rmse,
    wiener,
)

NUM_PARTICLES, NUM_LEVELS = 500, 50


def by_levels(prior):
    """A function `(key, problem) -> draws by site`."""
    smc = ns.NoiseLevelSMC(
        make_model(prior), NUM_PARTICLES, num_levels=NUM_LEVELS, progress_bar=False
    )
    posterior = particles(smc)
    return lambda key, problem: posterior(key, problem.observed, problem.y)[0]


def anneals(prior):
    """Likewise."""
    # With jit_model_args, and the bar that calls it a draw at a time, the loop compiles once.
    mcmc = MCMC(
        annealed_kernel(prior),
        num_warmup=0,
        num_samples=12,
        num_chains=16,
        chain_method="vectorized",
        jit_model_args=True,
    )

    def draws(key, problem):
        mcmc.run(key, problem.observed, y=problem.y)
        return mcmc.get_samples()

    return draws


def row(draws_of, prior, pictures, problem, key):
    """What is kept of a digit."""
    start = time.process_time()
    samples = draws_of(key, problem)
    draws, noise = np.asarray(samples["x"]), np.asarray(samples["noise"])
    seconds = time.process_time() - start
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    inside = (low <= problem.truth) & (problem.truth <= high)
    low, high = np.quantile(noise, [0.05, 0.95])
    return {
        "num_draws": len(noise),
        "inside": float(np.mean(inside)),
        # Of what the prior has as background nearly always, it knows the value.
        "inside_ink": float(np.mean(inside[problem.truth > -1])),
        "noise_inside": float(low <= NOISE <= high),
        "noise_mean": float(noise.mean()),
        "error": rmse(draws.mean(axis=0), problem.truth),
        "wiener_error": rmse(wiener(problem, pictures), problem.truth),
        "below": float(np.median(misfit(prior, problem, samples))),
        "seconds": seconds,
    }


def posteriors(draws_of, prior, pictures, held_out, seed, rows, kind):
    rng = np.random.default_rng(seed)
    found = []
    for i, truth in enumerate(held_out):
        measure_row = partial(row, draws_of, prior, pictures, measure(truth, rng), random.key(i))
        found.append(rows.get(f"{kind} {seed} {i}", measure_row))
    column = {name: np.array([one[name] for one in found]) for name in found[0]}
    total, total_wiener = (
        np.sqrt(np.mean(column[name] ** 2)) for name in ("error", "wiener_error")
    )
    print(
        f"{len(found)} held-out digits, {column['num_draws'][0]} draws each, "
        f"{np.median(column['seconds']):.1f} s of CPU a posterior (median)\n"
        f"  error of the posterior mean {total:.4f}, of the Wiener filter {total_wiener:.4f}, "
        f"ratio {total / total_wiener:.3f}\n"
        f"  coverage of the 90% intervals of the pixels {column['inside'].mean():.3f}, "
        f"of those with ink {column['inside_ink'].mean():.3f}\n"
        f"  true noise scale within its 90% interval: {column['noise_inside'].sum():.0f} of "
        f"{len(found)}, mean of the posterior means {column['noise_mean'].mean():.3f} "
        f"(truth {NOISE})\n"
        f"  log likelihood of draws below the truth's, median of a digit: "
        f"{np.median(column['below']):.1f} nats (half of all digits), {column['below'].max():.1f} "
        "(all)"
    )


def log_densities(prior, pictures):
    """Both values at smoothed held-out pictures, with a finer grid of each, and their cost."""
    noise = random.normal(random.key(3), pictures.shape)
    x = pictures + prior.process.sigma_min * noise
    rules = {
        "noise path, 32 nodes": ns.NoisePathIntegral(32),
        "noise path, 128 nodes": ns.NoisePathIntegral(128),
        "probability flow, 16 steps": ns.ProbabilityFlow(16),
        "probability flow, 64 steps": ns.ProbabilityFlow(64),
        "probability flow, 256 steps": ns.ProbabilityFlow(256),
    }
    values = {}
    print(f"log density of {len(x)} held-out digits at the smallest noise level, nats")
    for name, rule in rules.items():
        density = ns.DiffusionPrior(prior.denoiser, prior.process, (8, 8), log_density=rule)
        f = jax.jit(density.log_prob)
        f(x).block_until_ready()
        start = time.perf_counter()
        values[name] = np.asarray(f(x))
        milliseconds = 1e3 * (time.perf_counter() - start) / len(x)
        print(
            f"  {name:28s} mean {values[name].mean():8.2f}  sd {values[name].std():6.2f}  "
            f"{milliseconds:7.2f} ms a point"
        )
    path, flow = values["noise path, 128 nodes"], values["probability flow, 256 steps"]
    print(
        f"  correlation of the two {np.corrcoef(path, flow)[0, 1]:.3f}, "
        f"difference {np.mean(path - flow):.2f} +- {np.std(path - flow):.2f}"
    )

    # A point that truly is of the density has, along its own score, the slope that the score says.
    flow_density = ns.DiffusionPrior(
        prior.denoiser, prior.process, (8, 8), log_density=ns.ProbabilityFlow(64)
    )
    score = flow_density.score(x)
    for name in ("noise path, 32 nodes", "probability flow, 64 steps"):
        rule = rules[name]
        slope = jax.jit(jax.vmap(jax.grad(lambda x, rule=rule: raw_value(prior, rule, x))))(x[:16])
        cosine = np.sum(slope * score[:16], axis=(1, 2)) / (
            np.linalg.norm(slope, axis=(1, 2)) * np.linalg.norm(score[:16], axis=(1, 2))
        )
        print(
            f"  cosine between the gradient of the value and the score, {name}: {cosine.mean():.3f}"
        )


def raw_value(prior, rule, x):
    """The value itself, differentiable through the integral."""
    return rule(prior.denoiser, x, prior.process.sigma_min, prior.process.sigma_max)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-pictures", type=int, default=50)
    parser.add_argument("--annealed", action="store_true", help="a denoiser and anneals")
    parser.add_argument("--num-steps", type=int, default=12_000, help="to train the denoiser")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pictures, held_out = load_pictures(args.seed)
    rows = Rows(FOLDER / "digits.jsonl")
    kind = f"annealed {args.num_steps}" if args.annealed else f"levels {NUM_LEVELS}"
    if args.annealed:
        prior = train_denoiser(pictures, args.num_steps, args.seed)
    else:
        prior = digit_prior(seed=args.seed)
    draws_of = (anneals if args.annealed else by_levels)(prior)
    some = held_out[: args.num_pictures]
    posteriors(draws_of, prior, pictures, some, args.seed, rows, kind)
    if args.annealed:
        log_densities(prior, held_out[:64])


if __name__ == "__main__":
    main()
