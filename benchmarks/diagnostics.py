# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Time and memory of the kernel Stein discrepancy, beside a jitted double loop as one would write it.

Both have the same result; the loop is over single points, vectorised by JAX. Memory is the peak of
the process, with Python and JAX in it, after each part.
"""

import argparse
import resource
import statistics

import jax
import jax.numpy as jnp
from jax import Array, random

import numpyro_scores as ns
from benchmarks._timing import timed


def score(x: Array) -> Array:
    return -x


@jax.jit
def double_loop(x: Array, lengthscale: Array) -> Array:
    def kernel(x, y):
        difference, d = x - y, x.size
        u = jnp.sum(difference**2) / lengthscale**2
        phi = (1 + u) ** -0.5
        trace = (d * phi**3 - 3 * u * phi**5) / lengthscale**2
        work = (score(x) - score(y)) @ difference * phi**3 / lengthscale**2
        return trace + work + phi * score(x) @ score(y)

    def row(point):
        return jnp.sum(jax.vmap(kernel, (None, 0))(point, x)) - kernel(point, point)

    return jnp.sum(jax.lax.map(row, x)) / (len(x) * (len(x) - 1))


def peak_gib() -> float:
    """Of the process so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-samples", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    x = random.normal(random.key(0), (args.num_samples, args.dim))
    lengthscale = ns.diagnostics.kernel_stein_discrepancy(x[:2_000], score).lengthscale

    def ours(key=None):
        found = ns.diagnostics.kernel_stein_discrepancy(
            x, score, key=key, lengthscale=float(lengthscale)
        )
        return found.statistic

    def theirs():
        return double_loop(x, lengthscale)

    rows = {
        "`kernel_stein_discrepancy`": ours,
        "with 1,000 bootstrap draws": lambda: ours(random.key(1)),
        "a jitted double loop": theirs,
    }
    print(f"{args.num_samples} samples in {args.dim} dimensions, {jax.devices()[0].device_kind}\n")
    print("| | s | peak, GiB | squared discrepancy |\n|---|---|---|---|", flush=True)
    for name, run in rows.items():
        timed(run)
        seconds, values = zip(*(timed(run) for _ in range(args.repeats)), strict=True)
        print(
            f"| {name} | {statistics.median(seconds):.2f} | {peak_gib():.2f} | {values[0]:.6g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
