# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Wall time of each kernel through NumPyro's `MCMC` over the same maths in a bare jitted `lax.scan`;
the time of the first call beside that of NumPyro's NUTS; and what a second `run` compiles, with new
data of the same shape.

Without a progress bar `MCMC.run` compiles its loop at every call. The time of a draw is therefore
the slope between a short and a long run; the bare loop is timed compiled. The ratio is the median
of those of several pairs in turn, so that a machine whose speed drifts changes it little.
"""

import argparse
import contextlib
import io
import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, lax, random
from numpyro.infer import MCMC, NUTS

import numpyro_scores as ns
from benchmarks._timing import compilations, compiled_once, timed
from numpyro_scores.integrators import (
    Integrator,
    euler_maruyama,
    friction_flow,
    log_proposal_ratio,
)

NUM_STEPS = 10


class Problem(NamedTuple):
    name: str
    energy: Callable
    dim: int
    num_chains: int


def mixture_energy(x):
    angles = 2 * jnp.pi * jnp.arange(8) / 8
    means = 4 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return -jax.nn.logsumexp(-0.5 * jnp.sum((x - means) ** 2, axis=-1) / 0.25)


def gaussian_energy(x):
    return 0.5 * jnp.sum(x**2 * jnp.linspace(1.0, 4.0, x.size))


PROBLEMS = (
    Problem("mixture 2-d, 1000 chains", mixture_energy, 2, 1_000),
    Problem("Gaussian 100-d, 100 chains", gaussian_energy, 100, 100),
)


def scanned(start: Callable, draw: Callable) -> Callable:
    """One chain: a function of the position, a key and the number of draws."""

    def run(x, key, num_draws):
        key_start, key_draws = random.split(key)
        return lax.scan(draw, start(x, key_start), random.split(key_draws, num_draws))[1]

    return run


def repeated(step: Callable, numbers: Callable) -> Callable:
    """
    A draw of `NUM_STEPS` steps; the position comes first in what they carry. The random numbers of
    all of them are drawn at once, by `numbers(key, x)`, which on a CPU is faster than in the loop.
    """

    def draw(carry, key):
        carry, _ = lax.scan(step, carry, numbers(key, carry[0]))
        return carry, carry[0]

    return draw


def bare_unadjusted(integrator: Integrator, **settings: float) -> Callable:
    """For an energy, the loop of an integrator's steps."""

    def of_energy(energy):
        gradient = jax.grad(energy)

        def start(x, key):
            return integrator.init(x, random.normal(key, x.shape), gradient)

        def numbers(key, x):
            return random.normal(key, (NUM_STEPS, integrator.num_noises, *x.shape))

        def step(state, noise):
            return integrator.step(state, noise, gradient, **settings), None

        return scanned(start, repeated(step, numbers))

    return of_energy


def bare_mala(energy: Callable, step_size: float) -> Callable:
    value_and_grad = jax.value_and_grad(energy)

    def numbers(key, x):
        key_proposal, key_accept = random.split(key)
        noise = random.normal(key_proposal, (NUM_STEPS, *x.shape))
        return noise, random.uniform(key_accept, (NUM_STEPS,))

    def step(carry, numbers):
        x, u, g = carry
        noise, uniform = numbers
        y = euler_maruyama(x, g, step_size, noise)
        v, k = value_and_grad(y)
        log_ratio = u - v + log_proposal_ratio(g, k, step_size, noise)
        return accepted(uniform, log_ratio, (y, v, k), carry), None

    return scanned(lambda x, key: (x, *value_and_grad(x)), repeated(step, numbers))


def bare_malt(energy: Callable, step_size: float, friction: float) -> Callable:
    gradient = jax.grad(energy)

    def step(carry, noise):
        x, g, momentum, gain = carry
        momentum = friction_flow(momentum, noise, step_size, friction)
        gain = gain - jnp.sum(momentum**2) / 2
        momentum = momentum - step_size / 2 * g
        x = x + step_size * momentum
        g = gradient(x)
        momentum = momentum - step_size / 2 * g
        return (x, g, momentum, gain + jnp.sum(momentum**2) / 2), None

    def draw(carry, key):
        x, u, g = carry
        key_momentum, key_steps, key_accept = random.split(key, 3)
        start = (x, g, random.normal(key_momentum, x.shape), 0.0)
        noises = random.normal(key_steps, (NUM_STEPS, *x.shape))
        (y, k, _, gain), _ = lax.scan(step, start, noises)
        v = energy(y)
        carry = accepted(random.uniform(key_accept), u - v - gain, (y, v, k), carry)
        return carry, carry[0]

    return scanned(lambda x, key: (x, energy(x), gradient(x)), draw)


def accepted(uniform: Array, log_ratio: Array, proposal: tuple, current: tuple) -> tuple:
    accept = jnp.log(uniform) < log_ratio
    return jax.tree.map(lambda a, b: jnp.where(accept, a, b), proposal, current)


class Row(NamedTuple):
    """
    - **kernel** - its class.
    - **settings** - of the kernel, beside `num_steps`.
    - **bare** - for an energy, the loop that does the same.
    """

    kernel: Callable
    settings: dict[str, Any]
    bare: Callable


def unadjusted(kernel: Callable, integrator: Integrator, **settings: float) -> Row:
    return Row(kernel, settings, bare_unadjusted(integrator, **settings))


leimkuhler_matthews = partial(ns.OverdampedLangevin, integrator=ns.LeimkuhlerMatthews())
ROWS = {
    "ULA": unadjusted(ns.ULA, ns.EulerMaruyama(), step_size=0.01),
    "LeimkuhlerMatthews": unadjusted(leimkuhler_matthews, ns.LeimkuhlerMatthews(), step_size=0.01),
    "SKROCK": unadjusted(ns.SKROCK, ns.integrators.SKROCK(), step_size=0.05),
    "UnderdampedLangevin": unadjusted(
        ns.UnderdampedLangevin, ns.BAOAB(), step_size=0.1, friction=2.0
    ),
    "MALA": Row(ns.MALA, {"step_size": 0.05}, partial(bare_mala, step_size=0.05)),
    "MALT": Row(
        ns.MALT,
        {"step_size": 0.3, "friction": 1.0},
        partial(bare_malt, step_size=0.3, friction=1.0),
    ),
}


def seconds_a_draw(
    kernel: Any, start: Array, short: int, long: int, timed: Callable = timed
) -> float:
    def run(num_samples):
        mcmc = MCMC(
            kernel,
            num_warmup=0,
            num_samples=num_samples,
            num_chains=len(start),
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(random.key(0), init_params=start)
        return mcmc.get_samples()

    return (timed(run, long)[0] - timed(run, short)[0]) / (long - short)


def overhead(problem: Problem, num_draws: int, repeats: int) -> None:
    start = random.normal(random.key(1), (problem.num_chains, problem.dim))
    keys = random.split(random.key(2), problem.num_chains)
    steps = problem.num_chains * NUM_STEPS
    print(f"\n| {problem.name} | `MCMC`, chain-steps/s | bare scan | ratio of wall times |")
    print("|---|---|---|---|", flush=True)
    for name, row in ROWS.items():
        kernel = row.kernel(potential_fn=problem.energy, num_steps=NUM_STEPS, **row.settings)
        chains = jax.vmap(row.bare(problem.energy), in_axes=(0, 0, None))
        bare = jax.jit(chains, static_argnums=2)
        timed(bare, start, keys, num_draws)
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(seconds_a_draw(kernel, start, num_draws // 10, num_draws))
            theirs.append(timed(bare, start, keys, num_draws)[0] / num_draws)
        speeds = [steps / statistics.median(seconds) for seconds in (ours, theirs)]
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"| `{name}` | {speeds[0]:.3g} | {speeds[1]:.3g} | {ratio:.2f} |", flush=True)


def model(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([10]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(x, scale).to_event(1), obs=y)


def first_calls(repeats: int) -> None:
    print("\n| | first call, s | programs that a second run compiles |\n|---|---|---|", flush=True)
    kernels = {name: row.kernel for name, row in ROWS.items()}
    for name, kernel in {**kernels, "NUTS": NUTS}.items():
        seconds = []
        for _ in range(repeats):
            jax.clear_caches()
            mcmc = MCMC(kernel(model), num_warmup=1, num_samples=1, progress_bar=False)
            run = partial(mcmc.run, random.key(0))
            seconds.append(timed(run, jnp.ones(10))[0])
        again = second_run(kernel(model))
        print(
            f"| `{name}` | {statistics.median(seconds):.2f} | {len(again)} {' '.join(again)} |",
            flush=True,
        )


def second_run(kernel: Any) -> list[str]:
    """What `run` compiles when all that is new are the numbers of the data."""
    mcmc = MCMC(kernel, num_warmup=1, num_samples=1, jit_model_args=True, progress_bar=True)
    data = jnp.ones(10), jnp.linspace(-1.0, 1.0, 10)
    # Without the bar's loop of single draws NumPyro compiles anew, whatever the kernel.
    with contextlib.redirect_stderr(io.StringIO()):
        mcmc.run(random.key(0), data[0])
        with compilations() as names:
            mcmc.run(random.key(0), data[1])
    return names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num-draws", type=int, default=3_000)
    args = parser.parse_args()
    os.environ.pop("CI", None)  # with it NumPyro shows no bar
    first_calls(args.repeats)
    with compiled_once():
        for problem in PROBLEMS:
            overhead(problem, args.num_draws, args.repeats)


if __name__ == "__main__":
    main()
