# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Wall time of `MCLMC` and `MAMS` through NumPyro's `MCMC`, over the same maths, a diagonal metric
included, in a bare jitted `lax.scan`, and over BlackJAX's with the same step size, length and
number of gradients; medians of runs in turn, see `benchmarks.overhead`.

`python -m benchmarks.microcanonical.speed`
"""

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
from blackjax.mcmc.integrators import isokinetic_velocity_verlet
from jax import lax, random

import numpyro_scores as ns
from benchmarks._timing import compiled_once, timed
from benchmarks.overhead import (
    NUM_STEPS,
    PROBLEMS,
    Problem,
    accepted,
    repeated,
    scanned,
    seconds_a_draw,
)
from numpyro_scores.integrators import (
    MINIMAL_NORM,
    partly_refreshed,
    random_direction,
    turned,
)

STEP_SIZE, LENGTH = 0.2, 1.0
MEAN_STEPS = 5
NUM_FIRST = 100


def bare_mclmc(energy: Callable) -> Callable:
    value_and_grad = jax.value_and_grad(energy)

    def step(carry, noise):
        x, u, before, grad, _, root = carry
        time = STEP_SIZE * math.sqrt(x.size)
        u, kinetic = turned(u, root * grad, time * MINIMAL_NORM.turns[0])
        value = before
        for share, turn in zip(MINIMAL_NORM.moves, MINIMAL_NORM.turns[1:], strict=True):
            x = x + root * (time * share * u)
            value, grad = value_and_grad(x)
            u, more = turned(u, root * grad, time * turn)
            kinetic = kinetic + more
        u = partly_refreshed(u, noise, STEP_SIZE / LENGTH)
        return (x, u, value, grad, value - before + kinetic, root), None

    def start(x_and_root, key):
        x, root = x_and_root
        return x, random_direction(key, x.shape, x.dtype), *value_and_grad(x), 0.0, root

    return scanned(start, repeated(step, lambda key, x: random.normal(key, (NUM_STEPS, *x.shape))))


def bare_mams(energy: Callable) -> Callable:
    gradient = jax.grad(energy)

    def draw(carry, key):
        x, value, grad, root = carry

        def move(_, carry):
            x, u, grad, kinetic = carry
            time = STEP_SIZE * math.sqrt(x.size)
            u, first = turned(u, root * grad, time / 2)
            x = x + root * (time * u)
            grad = gradient(x)
            u, second = turned(u, root * grad, time / 2)
            return x, u, grad, kinetic + first + second

        key_length, key_direction, key_accept = random.split(key, 3)
        u = random_direction(key_direction, x.shape, x.dtype)
        num_steps = random.randint(key_length, (), 1, 2 * MEAN_STEPS)
        y, _, new_grad, kinetic = lax.fori_loop(0, num_steps, move, (x, u, grad, 0.0))
        new = energy(y)
        log_ratio = value - new - kinetic
        uniform = random.uniform(key_accept)
        x, value, grad = accepted(uniform, log_ratio, (y, new, new_grad), (x, value, grad))
        return (x, value, grad, root), x

    def start(x_and_root, key):
        x, root = x_and_root
        return x, energy(x), gradient(x), root

    return scanned(start, draw)


def blackjax_mclmc(energy: Callable) -> Callable:
    def log_density(x):
        return -energy(x)

    kernel = blackjax.mclmc.build_kernel()

    def start(x, key):
        return blackjax.mclmc.init(x, log_density, key)

    def draw(state, key):
        def step(state, key):
            size = math.sqrt(state.position.size)
            return kernel(key, state, log_density, 1.0, LENGTH * size, STEP_SIZE * size)[0], None

        state, _ = lax.scan(step, state, random.split(key, NUM_STEPS))
        return state, state.position

    return scanned(start, draw)


def blackjax_mams(energy: Callable) -> Callable:
    def log_density(x):
        return -energy(x)

    kernel = blackjax.adjusted_mclmc_dynamic.build_kernel(
        integration_steps_fn=lambda key: random.randint(key, (), 1, 2 * MEAN_STEPS),
        integrator=isokinetic_velocity_verlet,
    )

    def start(x, key):
        return blackjax.adjusted_mclmc_dynamic.init(x, log_density, key)

    def draw(state, key):
        step_size = STEP_SIZE * math.sqrt(state.position.size)
        state, _ = kernel(key, state, log_density, step_size)
        return state, state.position

    return scanned(start, draw)


KERNELS: dict[str, tuple[Callable[[Callable], Any], Callable, Callable]] = {
    "MCLMC": (
        lambda energy: ns.MCLMC(
            potential_fn=energy,
            step_size=STEP_SIZE,
            decoherence_length=LENGTH,
            num_steps=NUM_STEPS,
        ),
        bare_mclmc,
        blackjax_mclmc,
    ),
    "MAMS": (
        lambda energy: ns.MAMS(
            potential_fn=energy, step_size=STEP_SIZE, trajectory_length=MEAN_STEPS * STEP_SIZE
        ),
        bare_mams,
        blackjax_mams,
    ),
}


def compare(problem: Problem, name: str, seconds_a_run: float, repeats: int) -> None:
    start = random.normal(random.key(1), (problem.num_chains, problem.dim))
    keys = random.split(random.key(2), problem.num_chains)
    make, *loops = KERNELS[name]
    programs = [
        jax.jit(jax.vmap(loop(problem.energy), in_axes=(0, 0, None)), static_argnums=2)
        for loop in loops
    ]
    starts = (start, jnp.ones_like(start)), start
    first = partial(timed, programs[0], starts[0], keys, NUM_FIRST)
    first()
    # So many that what `MCMC.run` takes beside its draws, which varies, is little.
    num_draws = max(int(NUM_FIRST * seconds_a_run / first()[0]), NUM_FIRST)
    for program, of_chains in zip(programs, starts, strict=True):
        timed(program, of_chains, keys, num_draws)
    seconds: list[list[float]] = [[], [], []]
    for _ in range(repeats):
        kernel = make(problem.energy)
        seconds[0].append(seconds_a_draw(kernel, start, num_draws // 10, num_draws))
        for k, (program, of_chains) in enumerate(zip(programs, starts, strict=True)):
            seconds[k + 1].append(timed(program, of_chains, keys, num_draws)[0] / num_draws)
    ratios = [
        statistics.median(a / b for a, b in zip(seconds[0], other, strict=True))
        for other in seconds[1:]
    ]
    micro = 1e6 * statistics.median(seconds[0]) / problem.num_chains
    print(
        f"| {problem.name} | `{name}` | {micro:.3g} us a draw and chain | {ratios[0]:.2f} | "
        f"{ratios[1]:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of the draws of one run")
    args = parser.parse_args()
    print("| target | kernel | `MCMC` | over a bare scan | over BlackJAX |\n|---|---|---|---|---|")
    with compiled_once():
        for problem in PROBLEMS:
            for name in args.kernels:
                compare(problem, name, args.seconds, args.repeats)


if __name__ == "__main__":
    main()
