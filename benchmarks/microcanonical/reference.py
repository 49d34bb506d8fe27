# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Reference moments of the posteriors: long runs of NumPyro's NUTS, as a table of numbers.

`python -m benchmarks.microcanonical.reference --targets brownian` writes `reference/brownian.csv`:
a line for each constrained value, with the mean of its square, the variance of its square, and the
standard error of the mean over the root of this variance, by ArviZ.
"""

import argparse
import time

import arviz as az
import jax
import numpy as np
from jax import lax, random
from numpyro.infer import NUTS

from benchmarks.microcanonical.posteriors import MODELS, REFERENCE, unsolved
from benchmarks.microcanonical.problem import starts

CHUNK = 50
NUM_WARMUP = 1_000


def squares(name: str, num_chains: int, num_draws: int, seconds: float) -> np.ndarray:
    """Of the draws after warmup, shape `(num_chains, num_draws, k)`."""
    problem = unsolved(name)
    kernel = NUTS(potential_fn=problem.potential)
    z, keys = starts(problem, num_chains), random.split(random.key(5), num_chains)
    state = kernel.init(keys, NUM_WARMUP, z, (), {})

    def draw(state, _):
        state = kernel.sample(state, (), {})
        return state, jax.vmap(problem.figures)(state.z)

    advance = jax.jit(lambda state: lax.scan(draw, state, length=CHUNK))
    begin, chunks = time.process_time(), []
    for k in range((NUM_WARMUP + num_draws) // CHUNK):
        state, figures = advance(state)
        if k >= NUM_WARMUP // CHUNK:
            chunks.append(np.asarray(figures))
        if time.process_time() - begin > seconds:
            break
    return np.concatenate(chunks).swapaxes(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--num-chains", type=int, default=4)
    parser.add_argument("--num-draws", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=400, help="of CPU time, a target")
    args = parser.parse_args()
    REFERENCE.mkdir(exist_ok=True)
    for name in args.targets:
        x = squares(name, args.num_chains, args.num_draws, args.seconds)
        pooled = x.reshape(-1, x.shape[-1]).astype(float)
        mean, variance = pooled.mean(axis=0), pooled.var(axis=0)
        ess = np.array([az.ess(x[..., k], method="mean") for k in range(x.shape[-1])])
        rhat = max(az.rhat(x[..., k]) for k in range(x.shape[-1]))
        table = np.stack([mean, variance, ess**-0.5], axis=1)
        head = (
            f"{name}: {x.shape[0]} chains of {x.shape[1]} draws of NUTS, "
            f"least ESS {ess.min():.0f}, largest R-hat {rhat:.3f}\n"
            "mean of the square,its variance,standard error"
        )
        np.savetxt(REFERENCE / f"{name}.csv", table, fmt="%.6g", delimiter=",", header=head)
        print(f"{head}\nworst squared error of the reference {np.max(1 / ess):.5f}", flush=True)


if __name__ == "__main__":
    main()
