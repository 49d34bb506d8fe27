# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Wall time of a kernel through NumPyro's `MCMC` over the same maths in a bare jitted `lax.scan`, and
the time of the first call beside that of NumPyro's NUTS.

`MCMC.run` compiles its loop at every call. The time of a draw is therefore the slope between a
short and a long run; the bare loop is timed compiled. Both are the median of several repeats in
turn, so that a machine whose speed drifts changes the ratio little.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from numpyro.infer import MCMC, NUTS

import numpyro_scores as ns

NUM_STEPS = 10


def mixture_energy(x):
    angles = 2 * jnp.pi * jnp.arange(8) / 8
    means = 4 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return -jax.nn.logsumexp(-0.5 * jnp.sum((x - means) ** 2, axis=-1) / 0.25)


def gaussian_energy(x):
    return 0.5 * jnp.sum(x**2 * jnp.linspace(1.0, 4.0, x.size))


def bare_ula(energy: Callable, step_size: float) -> Callable:
    """One chain: a function of the position, a key and the number of draws."""
    grad = jax.grad(energy)

    def step(carry, key):
        x, g = carry
        x = x - step_size * g + jnp.sqrt(2 * step_size) * random.normal(key, x.shape)
        return (x, grad(x)), None

    def draw(carry, key):
        carry, _ = lax.scan(step, carry, random.split(key, NUM_STEPS))
        return carry, carry[0]

    def run(x, key, num_draws):
        return lax.scan(draw, (x, grad(x)), random.split(key, num_draws))[1]

    return run


def bare_mala(energy: Callable, step_size: float) -> Callable:
    """One chain: a function of the position, a key and the number of draws."""
    value_and_grad = jax.value_and_grad(energy)

    def step(carry, key):
        x, u, g = carry
        key_proposal, key_accept = random.split(key)
        y = x - step_size * g + jnp.sqrt(2 * step_size) * random.normal(key_proposal, x.shape)
        v, k = value_and_grad(y)
        forward = jnp.sum((y - x + step_size * g) ** 2)
        backward = jnp.sum((x - y + step_size * k) ** 2)
        log_ratio = u - v + (forward - backward) / (4 * step_size)
        accept = jnp.log(random.uniform(key_accept)) < log_ratio
        return jax.tree.map(lambda a, b: jnp.where(accept, a, b), (y, v, k), carry), None

    def draw(carry, key):
        carry, _ = lax.scan(step, carry, random.split(key, NUM_STEPS))
        return carry, carry[0]

    def run(x, key, num_draws):
        return lax.scan(draw, (x, *value_and_grad(x)), random.split(key, num_draws))[1]

    return run


def timed(f: Callable, *args) -> float:
    start = time.perf_counter()
    jax.block_until_ready(f(*args))
    return time.perf_counter() - start


def seconds_a_draw(kernel, num_chains: int, start, short: int, long: int) -> float:
    def run(num_samples):
        mcmc = MCMC(
            kernel,
            num_warmup=0,
            num_samples=num_samples,
            num_chains=num_chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(random.key(0), init_params=start)
        return mcmc.get_samples()

    return (timed(run, long) - timed(run, short)) / (long - short)


def overhead(problem, energy, kernels, dim, num_chains, num_draws, repeats):
    start = random.normal(random.key(1), (num_chains, dim))
    for name, kernel, bare in kernels:
        bare = jax.jit(jax.vmap(bare, in_axes=(0, 0, None)), static_argnums=2)
        keys = random.split(random.key(2), num_chains)
        timed(bare, start, keys, num_draws)
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(seconds_a_draw(kernel, num_chains, start, num_draws // 10, num_draws))
            theirs.append(timed(bare, start, keys, num_draws) / num_draws)
        ours, theirs = statistics.median(ours), statistics.median(theirs)
        steps = num_chains * NUM_STEPS
        print(
            f"{problem:24s} {name:6s} MCMC {steps / ours:9.3g}  bare scan {steps / theirs:9.3g} "
            f"chain-steps/s   ratio of wall times {ours / theirs:5.2f}",
            flush=True,
        )


def first_call(repeats):
    def model(y):
        x = numpyro.sample("x", dist.Normal(0, 1).expand([10]).to_event(1))
        scale = numpyro.sample("scale", dist.HalfNormal(1))
        numpyro.sample("y", dist.Normal(x, scale).to_event(1), obs=y)

    kernels = {"ULA": ns.ULA, "MALA": ns.MALA, "NUTS": NUTS}
    for name, kernel in kernels.items():
        seconds = []
        for _ in range(repeats):
            jax.clear_caches()
            mcmc = MCMC(kernel(model), num_warmup=1, num_samples=1, progress_bar=False)
            seconds.append(timed(lambda mcmc=mcmc: mcmc.run(random.key(0), jnp.ones(10))))
        print(f"first call {name:5s} {statistics.median(seconds):.2f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num-draws", type=int, default=4_000)
    args = parser.parse_args()
    problems = (
        ("mixture 2-d, 1000 chains", mixture_energy, 2, 1_000, 0.01, 0.05),
        ("Gaussian 100-d, 100 chains", gaussian_energy, 100, 100, 0.01, 0.05),
    )
    for problem, energy, dim, num_chains, step_ula, step_mala in problems:
        kernels = (
            (
                "ULA",
                ns.ULA(potential_fn=energy, step_size=step_ula, num_steps=NUM_STEPS),
                bare_ula(energy, step_ula),
            ),
            (
                "MALA",
                ns.MALA(potential_fn=energy, step_size=step_mala, num_steps=NUM_STEPS),
                bare_mala(energy, step_mala),
            ),
        )
        overhead(problem, energy, kernels, dim, num_chains, args.num_draws, args.repeats)
    first_call(args.repeats)


if __name__ == "__main__":
    main()
