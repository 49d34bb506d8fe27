# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Why the bias of MCLMC is larger than asked for where modes differ in width: their weights.

A step leaves another density as it is, of which a direction of a mode has the variance
:math:`\sigma^2 (1 + b)`, so that of `d` directions its weight is :math:`(1 + b)^{d / 2}` times too
large. What is printed of the bimodal target of the table are the relative errors `b` of the
variances within each mode, the share of the narrow one, which is 1/4, and the share that follows
from these errors. Chains start from exact draws: there is no transient.

`python -m benchmarks.microcanonical.modes`
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

import numpyro_scores as ns
from benchmarks.microcanonical.closed_form import bimodal

D, SHARE, SHIFT, SD = 50, 0.25, 4.0, 0.6
NUM_CHAINS, NUM_WARMUP, NUM_STEPS = 64, 1_000, 10


def exact_draw(key: Array) -> Array:
    key_mode, key_noise = random.split(key)
    noise = random.normal(key_noise, (D,))
    narrow = (SD * noise).at[0].add(SHIFT)
    return jnp.where(random.uniform(key_mode) < SHARE, narrow, noise)


def figures(x: Array) -> Array:
    """Whether it is of the narrow mode, and the mean square of the other directions in each."""
    # A distance of 18 +- 4 within the narrow mode and 66 +- 12 within the wide one.
    is_narrow = jnp.sum(x.at[0].add(-SHIFT) ** 2) < 36
    square = jnp.mean(x[1:] ** 2)
    return jnp.array([is_narrow, is_narrow * square / SD**2, ~is_narrow * square])


def run(desired_bias: float, num_draws: int) -> None:
    kernel = ns.MCLMC(
        potential_fn=bimodal().potential, desired_bias=desired_bias, num_steps=NUM_STEPS
    )
    start = jax.vmap(exact_draw)(random.split(random.key(0), NUM_CHAINS))
    keys = random.split(random.key(1), NUM_CHAINS)
    state = jax.jit(lambda keys, z: kernel.init(keys, NUM_WARMUP, z, (), {}))(keys, start)

    def draw(carry, _):
        state, total = carry
        state = kernel.sample(state, (), {})
        return (state, total + jax.vmap(figures)(state.z)), None

    @jax.jit
    def advance(state):
        total = jnp.zeros((NUM_CHAINS, 3))
        return lax.scan(draw, (state, total), length=NUM_WARMUP)[0]

    state, _ = advance(state)
    chunks = []
    for _ in range(num_draws // NUM_WARMUP):
        state, total = advance(state)
        chunks.append(np.asarray(total, float) / NUM_WARMUP)
    of_chains = np.mean(chunks, axis=0)
    narrow = of_chains[:, 0]
    share, error = narrow.mean(), narrow.std(ddof=1) / NUM_CHAINS**0.5
    errors = of_chains[:, 1:].mean(axis=0) / [share, 1 - share] - 1
    odds = SHARE / (1 - SHARE) * ((1 + errors[0]) / (1 + errors[1])) ** (D / 2)
    print(
        f"| {desired_bias:.2%} | {float(jnp.median(state.variance_error)):+.2%} | "
        f"{errors[0]:+.2%} | {errors[1]:+.2%} | {share:.3f} ± {error:.3f} | "
        f"{odds / (1 + odds):.3f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-draws", type=int, default=15_000)
    args = parser.parse_args()
    print("| asked for | `variance_error` | narrow mode | wide mode | share of narrow | by these |")
    print("|---|---|---|---|---|---|")
    for desired_bias in (0.01, 0.0025):
        run(desired_bias, args.num_draws)


if __name__ == "__main__":
    main()
