# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How often 90% intervals hold digits of 28 x 28 pixels that are drawn from the energy of
`examples/mnist_energy.py`, of which 13 rows are measured with noise 0.5.

`split`: the split Gibbs sampler, whose coupling is a part of the noise: the model has what is left
of it, so that the target is the posterior itself. Then trajectories of MALT from each of its draws,
which are exact for the energy but do not go from mode to mode; both are looked at. 19 chains, since
an interval from the smallest to the largest of 19 exact draws holds 18 of 20 truths. `levels`,
`twisted`: 64 particles through the noise levels. `truth`: chains of MALT from the truth, which is
itself a draw of the posterior: how wide the mode is in which they begin, no coverage.

Each posterior becomes a line of `.cache/mnist_energy/coverage.jsonl`: a run that was cut goes on.

    python -m benchmarks.mnist_coverage --num 40
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import MCMC

import numpyro_scores as ns
from benchmarks._rows import Rows
from benchmarks.energy_coverage import UNCERTAIN, particles, uniformity
from benchmarks.mnist_energy import ROOT, learned_energy_prior, load, truths_of

NUM_ROWS, NOISE, COUPLING = 13, 0.5, 0.4
NUM_CHAINS, NUM_TRAJECTORIES = 19, 15


def model_of(prior: ns.DiffusionPrior, noise: float = NOISE) -> Callable:
    def model(y: Array | None = None) -> None:
        x: Any = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:NUM_ROWS], noise).to_event(2), obs=y)

    return model


def chains_of(kernel: Any, num_warmup: int, num_samples: int) -> Callable:
    """The last states of chains, by site, and the mean acceptance probability, if there is one."""
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    fields = ("accept_prob",) if isinstance(kernel, ns.MALT) else ()

    def run(key: Array, y: Array, start: dict[str, Array] | None = None) -> tuple[Array, Array]:
        mcmc.run(key, y=y, init_params=start, extra_fields=fields)
        return mcmc.last_state.z, jnp.mean(mcmc.get_extra_fields().get("accept_prob", 1.0))

    return run


def settling(prior: ns.DiffusionPrior, num_trajectories: int = NUM_TRAJECTORIES) -> Callable:
    # 784 directions, most of which are as stiff as the noise of the prior: the step that a Gaussian
    # alike in all of them would have.
    step_size = 1.42 * 784 ** (-1 / 4) * float(prior.sigma)
    kernel = ns.MALT(
        model_of(prior), step_size=step_size, adapt_step_size=False, adapt_mass_matrix=False
    )
    return chains_of(kernel, 0, num_trajectories)


def split(prior: ns.DiffusionPrior) -> Callable:
    rest = float(np.sqrt(NOISE**2 - COUPLING**2))
    kernel = ns.SplitGibbs(
        model_of(prior, rest), coupling=COUPLING, sampler=ns.Ancestral(num_steps=10)
    )
    # The first half of them anneal.
    anneal, settle = chains_of(kernel, 23, 1), settling(prior)

    @jax.jit
    def posterior(key: Array, y: Array, truth: Array) -> tuple[dict[str, Array], dict[str, Any]]:
        key_anneal, key_settle = random.split(key)
        before, _ = anneal(key_anneal, y)
        after, accept_prob = settle(key_settle, y, before)
        evals = 24 * 10 + 10 * NUM_TRAJECTORIES
        return {"split": before["x"], "MALT": after["x"]}, {
            "accept_prob": accept_prob,
            "evals": evals,
        }

    return posterior


def from_truth(prior: ns.DiffusionPrior) -> Callable:
    num_trajectories = 60
    settle = settling(prior, num_trajectories)

    @jax.jit
    def posterior(key: Array, y: Array, truth: Array) -> tuple[dict[str, Array], dict[str, Any]]:
        start = jnp.broadcast_to(truth, (NUM_CHAINS, *truth.shape))
        after, accept_prob = settle(key, y, {"x": start})
        return {"MALT": after["x"]}, {"accept_prob": accept_prob, "evals": 10 * num_trajectories}

    return posterior


def of_particles(make: Callable, prior: ns.DiffusionPrior) -> Callable:
    model = model_of(prior)
    run = particles(make(lambda observed, y: model(y), 64, num_levels=50, progress_bar=False))

    def posterior(key: Array, y: Array, truth: Array) -> tuple[dict[str, Array], dict[str, Any]]:
        draws, evals, ess = run(key, jnp.zeros(()), y)
        return {"particles": draws["x"]}, {"evals": evals, "smallest ess": ess}

    return posterior


SAMPLERS: dict[str, Callable] = {
    "split": split,
    "truth": from_truth,
    "levels": partial(of_particles, ns.NoiseLevelSMC),
    "twisted": partial(of_particles, ns.TwistedDiffusionSampler),
}


def row(
    posterior: Callable, log_prob: Callable, truth: np.ndarray, y: np.ndarray, key: Array
) -> dict[str, Any]:
    """How the truth lies among the draws, of each stage of the sampler."""
    start = time.process_time()
    draws, figures = jax.device_get(posterior(key, y, jnp.asarray(truth)))
    found: dict[str, Any] = {"seconds": time.process_time() - start}
    found |= {name: float(figure) for name, figure in figures.items()}
    log_likelihood = partial(log_likelihood_of, y)
    for stage, x in draws.items():
        ranks, sd = np.mean(x < truth, axis=0), x.std(axis=0)
        inside, uncertain = (ranks > 0.05) & (ranks < 0.95), sd > UNCERTAIN
        # Of the posterior: with prior and likelihood.
        values = log_prob(x) + log_likelihood(x)
        value = log_prob(truth[None]) + log_likelihood(truth[None])
        found[stage] = {
            "all": float(inside.mean()),
            "uncertain": float(inside[uncertain].mean()),
            "measured": float(inside[:NUM_ROWS].mean()),
            "missing, uncertain": float(inside[NUM_ROWS:][uncertain[NUM_ROWS:]].mean()),
            "share uncertain": float(uncertain.mean()),
            "sd": float(np.sqrt(np.mean(sd**2))),
            "error of the mean": float(np.sqrt(np.mean((x.mean(axis=0) - truth) ** 2))),
            "log prior, median": float(np.median(log_prob(x))),
            "log prior, truth": float(log_prob(truth[None])[0]),
            "rank of the energy": float(np.mean(values > value)),
            "below the truth": float(np.median(log_likelihood(truth[None]) - log_likelihood(x))),
        }
    return found


def log_likelihood_of(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return -np.sum((y - x[:, :NUM_ROWS]) ** 2, axis=(1, 2)) / (2 * NOISE**2)


def report(name: str, rows: list[dict[str, Any]]) -> None:
    seconds = np.median([row["seconds"] for row in rows])
    figures = {key: value for key, value in rows[-1].items() if not isinstance(value, dict)}
    print(f"{name}, {len(rows)} pictures, {seconds:.0f} s of CPU each (median); {figures}")
    for stage in [key for key, value in rows[0].items() if isinstance(value, dict)]:
        print(f"  {stage}")
        for key in rows[0][stage]:
            values = np.array([row[stage][key] for row in rows])
            error = values.std() / np.sqrt(len(values))
            print(f"    {key}: {values.mean():.3f} +- {error:.3f}")
        print("    ", uniformity(np.array([row[stage]["rank of the energy"] for row in rows])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sampler", choices=SAMPLERS, default="split")
    parser.add_argument("--num", type=int, default=40, help="pictures")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--num-truths", type=int, default=40, help="drawn together, and then kept")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # Of a draw 18 evaluations: NoiseLevelSMC makes 256 of them for the prior's moments.
    prior = learned_energy_prior(load(0)[0], sampler=ns.Multistep(num_steps=18))
    _, truths = truths_of(learned_energy_prior(load(0)[0]), args.num_truths, args.seed)
    posterior = SAMPLERS[args.sampler](prior)
    log_prob = jax.jit(lambda x: jax.lax.map(prior.log_prob, x, batch_size=8))
    rows, found = Rows(ROOT / ".cache/mnist_energy/coverage.jsonl"), []
    for i, truth in enumerate(truths[args.first :][: args.num], args.first):
        rng = np.random.default_rng([args.seed, i])
        y = truth[:NUM_ROWS] + NOISE * rng.normal(size=(NUM_ROWS, 28)).astype(np.float32)
        key = random.key(1_000 * args.seed + i)
        name = f"{args.sampler} {args.seed} {i} of {args.num_truths}"
        measure = partial(row, posterior, log_prob, truth, y, key)
        found.append(rows.get(name, measure))
        print(name, found[-1], flush=True)
    report(args.sampler, found)


if __name__ == "__main__":
    main()
