# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How far the posterior of `examples/digits_deblurring.py` can be trusted: its error against the
Wiener filter's, the coverage of its 90% intervals, how often the true noise scale lies in its own,
and how many nats the log likelihood of its draws lies below the truth's, over held-out digits.

Many posteriors of one model are drawn faster by `NoiseLevelSMC` than by the chains of the example,
and both are exact. With `--annealed` the prior is a denoiser and the draws are anneals; then the
two ways to the log density of a denoiser are compared, too.
"""

import argparse
import time

import jax
import numpy as np
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns
from benchmarks._digit_denoiser import annealed_kernel, train_denoiser
from examples.digits_deblurring import (
    NOISE,
    load_pictures,
    make_model,
    measure,
    misfit,
    rmse,
    train_prior,
    wiener,
)

NUM_PARTICLES, NUM_LEVELS = 500, 25


def particles(prior):
    """A function `(key, problem) -> draws by site`."""
    smc = ns.NoiseLevelSMC(
        make_model(prior), NUM_PARTICLES, num_levels=NUM_LEVELS, progress_bar=False
    )

    def draws(key, problem):
        smc.run(key, problem.observed, y=problem.y)
        return smc.get_samples()

    return draws


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


def posteriors(draws_of, prior, pictures, held_out, seed):
    rng = np.random.default_rng(seed)
    problems = [measure(truth, rng) for truth in held_out]
    errors, wiener_errors, inside, noise_inside, noise_means, below = [], [], [], [], [], []
    start = time.perf_counter()
    for i, problem in enumerate(problems):
        samples = draws_of(random.key(i), problem)
        draws, noise = np.asarray(samples["x"]), np.asarray(samples["noise"])
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        inside.append(np.mean((low <= problem.truth) & (problem.truth <= high)))
        low, high = np.quantile(noise, [0.05, 0.95])
        noise_inside.append(low <= NOISE <= high)
        noise_means.append(noise.mean())
        errors.append(rmse(draws.mean(axis=0), problem.truth))
        wiener_errors.append(rmse(wiener(problem, pictures), problem.truth))
        below.append(np.median(misfit(prior, problem, samples)))
    elapsed = time.perf_counter() - start
    total, total_wiener = np.sqrt(np.mean(np.square([errors, wiener_errors]), axis=1))
    print(
        f"{len(problems)} held-out digits, {len(noise)} draws each, {elapsed:.0f} s\n"
        f"  error of the posterior mean {total:.4f}, of the Wiener filter {total_wiener:.4f}, "
        f"ratio {total / total_wiener:.3f}\n"
        f"  coverage of the 90% intervals of the pixels {np.mean(inside):.3f}\n"
        f"  true noise scale within its 90% interval: {sum(noise_inside)} of {len(problems)}, "
        f"mean of the posterior means {np.mean(noise_means):.3f} (truth {NOISE})\n"
        f"  log likelihood of draws below the truth's, median of a digit: {np.median(below):.1f} "
        f"nats (half of all digits), {np.max(below):.1f} (all)"
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
    parser.add_argument("--num-steps", type=int, help="training steps, 4,000, of a denoiser 12,000")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pictures, held_out = load_pictures(args.seed)
    start = time.perf_counter()
    train, num_steps = (train_denoiser, 12_000) if args.annealed else (train_prior, 4_000)
    prior = train(pictures, args.num_steps or num_steps, args.seed)
    print(f"training {time.perf_counter() - start:.0f} s")
    draws_of = (anneals if args.annealed else particles)(prior)
    posteriors(draws_of, prior, pictures, held_out[: args.num_pictures], args.seed)
    if args.annealed:
        log_densities(prior, held_out[:64])


if __name__ == "__main__":
    main()
