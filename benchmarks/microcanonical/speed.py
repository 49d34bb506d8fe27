# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
CPU time of `MCLMC` and `MAMS`, over that of the same maths, a diagonal metric and the error of the
energy included, in a bare jitted `lax.scan`: of the kernel in such a scan, and through NumPyro's
`MCMC`. What lies between the two is NumPyro's own: it fills the room for all draws twice before the
first, and turns it round behind the last. Then over BlackJAX's with the same step size, length and
number of gradients. Medians of runs in turn, see `benchmarks.overhead`.

`python -m benchmarks.microcanonical.speed`
"""

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
from blackjax.mcmc.integrators import isokinetic_velocity_verlet
from jax import Array, lax, random

import numpyro_scores as ns
from benchmarks import _timing
from benchmarks.overhead import (
    NUM_STEPS,
    PROBLEMS,
    Problem,
    accepted,
    scanned,
    seconds_a_draw,
)
from numpyro_scores.integrators import (
    MINIMAL_NORM,
    partly_refreshed,
    random_direction,
    turned,
)

timed = partial(_timing.timed, clock=process_time)
STEP_SIZE, LENGTH = 0.2, 1.0
# Of MAMS: from 3 to 7.
MEAN_STEPS, STEPS = 5, (3, 8)
NUM_FIRST = 100


def bare_mclmc(energy: Callable) -> Callable:
    value_and_grad = jax.value_and_grad(energy)

    def step(carry, noise):
        x, u, before, grad, root = carry
        time = STEP_SIZE * math.sqrt(x.size)
        u, kinetic = turned(u, root * grad, time * MINIMAL_NORM.turns[0])
        value = before
        for share, turn in zip(MINIMAL_NORM.moves, MINIMAL_NORM.turns[1:], strict=True):
            x = x + root * (time * share * u)
            value, grad = value_and_grad(x)
            u, more = turned(u, root * grad, time * turn)
            kinetic = kinetic + more
        u = partly_refreshed(u, noise, STEP_SIZE / LENGTH)
        return (x, u, value, grad, root), (value - before + kinetic) ** 2 / x.size

    def draw(carry, key):
        noise = random.normal(key, (NUM_STEPS, *carry[0].shape))
        carry, squares = lax.scan(step, carry, noise)
        # What tells the bias: a loop that did not report it would not compute it either.
        return carry, (carry[0], jnp.mean(squares))

    def start(x_and_root, key):
        x, root = x_and_root
        return x, random_direction(key, x.shape, x.dtype), *value_and_grad(x), root

    return scanned(start, draw)


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
        num_steps = random.randint(key_length, (), *STEPS)
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
        integration_steps_fn=lambda key: random.randint(key, (), *STEPS),
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


def kernel_in_a_scan(kernel: Any, start: Array, keys: Array, num_draws: int) -> Callable:
    state = kernel.init(keys, 0, start, (), {})

    def draw(state, _):
        state = kernel.sample(state, (), {})
        return state, (state.z, state.diverging)

    program = jax.jit(lambda state: lax.scan(draw, state, length=num_draws)[1])
    return lambda: program(state)


def compare(problem: Problem, name: str, seconds_a_run: float, repeats: int) -> None:
    start = random.normal(random.key(1), (problem.num_chains, problem.dim))
    keys = random.split(random.key(2), problem.num_chains)
    make, *loops = KERNELS[name]
    bare, blackjax = [
        jax.jit(jax.vmap(loop(problem.energy), in_axes=(0, 0, None)), static_argnums=2)
        for loop in loops
    ]
    with_root = start, jnp.ones_like(start)
    first = partial(timed, bare, with_root, keys, NUM_FIRST)
    first()
    # So many that what `MCMC.run` takes beside its draws, which varies, is little.
    num_draws = max(int(NUM_FIRST * seconds_a_run / first()[0]), NUM_FIRST)
    programs = [
        partial(bare, with_root, keys, num_draws),
        kernel_in_a_scan(make(problem.energy), start, keys, num_draws),
        partial(blackjax, start, keys, num_draws),
    ]
    for program in programs:
        timed(program)
    # Of the bare scan, of the kernel, of BlackJAX's, and through MCMC.
    seconds: list[list[float]] = []
    for _ in range(repeats):
        of_draws = [timed(program)[0] / num_draws for program in programs]
        kernel = make(problem.energy)
        of_mcmc = seconds_a_draw(kernel, start, num_draws // 10, num_draws, timed)
        seconds.append([*of_draws, of_mcmc])

    def ratio(a: int, b: int) -> float:
        return statistics.median(each[a] / each[b] for each in seconds)

    micro = 1e6 * statistics.median(each[3] for each in seconds) / problem.num_chains
    print(
        f"| {problem.name} | `{name}` | {micro:.3g} us a draw and chain | {ratio(1, 0):.2f} | "
        f"{ratio(3, 0):.2f} | {ratio(1, 2):.2f} | {ratio(3, 2):.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    problems = {problem.name.split()[0]: problem for problem in PROBLEMS}
    parser.add_argument("--targets", nargs="+", choices=problems, default=list(problems))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of the draws of one run")
    args = parser.parse_args()
    print(
        "| target | kernel | `MCMC` | kernel / bare | `MCMC` / bare | kernel, `MCMC` / theirs | |"
    )
    print("|---|---|---|---|---|---|---|")
    with _timing.compiled_once():
        for target in args.targets:
            for name in args.kernels:
                compare(problems[target], name, args.seconds, args.repeats)


if __name__ == "__main__":
    main()
