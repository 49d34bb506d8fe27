# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Why the bias of MCLMC is larger than asked for where modes differ in width: their weights.

A step of time `h` keeps, of a direction of frequency :math:`\omega`, the energy
:math:`(\omega^2 c_x x^2 + c_p p^2) / 2` in the place of :math:`(\omega^2 x^2 + p^2) / 2`, with
:math:`c = 1 + O(h^2 \omega^2)`, while the momentum is refreshed from N(0, 1). Of a mode the first
factor changes the width, and both its weight, by :math:`e^{-(c_p - 1) / 2} c_x^{-1 / 2}` a
direction: in `d` directions a small error to the power `d`, of which the widths say nothing.

What is printed of the bimodal target of the table are the relative errors of the variances within
each mode, the share of the narrow one, which is 1/4, and the share by these factors: NaN if a step
is unstable along the line between the modes, where the metric is that of the distance. Chains start
from exact draws: there is no transient.

`python -m benchmarks.microcanonical.modes`
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

import numpyro_scores as ns
from benchmarks.microcanonical.closed_form import bimodal
from numpyro_scores.integrators import MINIMAL_NORM

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


def log_weight(frequency: float) -> float:
    """What a step of time 1 of the minimal norm adds to the log weight of a direction."""
    step = np.array([[1.0, 0.0], [-MINIMAL_NORM.turns[0] * frequency**2, 1.0]])
    for turn, move in zip(MINIMAL_NORM.turns[1:], MINIMAL_NORM.moves, strict=True):
        drift = np.array([[1.0, move], [0.0, 1.0]])
        step = np.array([[1.0, 0.0], [-turn * frequency**2, 1.0]]) @ drift @ step
    half = np.trace(step) / 2
    angle = np.arccos(half) if abs(half) < 1 else np.nan
    c_x = -step[1, 0] * angle / np.sin(angle) / frequency**2
    c_p = step[0, 1] * angle / np.sin(angle)
    return -(c_p - 1) / 2 - np.log(c_x) / 2


def share_by_steps(steps: np.ndarray) -> float:
    """Of the narrow mode, with these steps of each chain in each direction."""
    shifts = np.vectorize(log_weight)(steps / SD) - np.vectorize(log_weight)(steps)
    odds = SHARE / (1 - SHARE) * np.exp(shifts.sum(axis=1))
    return float(np.mean(odds / (1 + odds)))


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
    steps = state.step_size[:, None] * state.adapt_state.mass_matrix_sqrt_inv
    print(
        f"| {desired_bias:.2%} | {float(jnp.median(state.variance_error)):+.2%} | "
        f"{errors[0]:+.2%} | {errors[1]:+.2%} | {share:.3f} ± {error:.3f} | "
        f"{share_by_steps(np.asarray(steps, float)):.3f} |",
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
