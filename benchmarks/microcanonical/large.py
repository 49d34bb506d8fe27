# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
MCLMC in 100,000 dimensions: how far the second moments are off beside the bias that was asked for,
and what memory it takes as the run goes on.

Of the Gaussian, of variances from 0.1 to 10, the mean of `x^2` over the variance is 1. Of the
lattice,

.. math:: U = \sum_i \tfrac{1}{2} \sum_{j \sim i, j > i} (\phi_i - \phi_j)^2
    + \tfrac{m}{2} \phi_i^2 + \tfrac{\lambda}{4} \phi_i^4,

the mean of :math:`\phi^2` is, as long as correlations are short, that of a lattice of 32 x 32
sites, from MAMS; and :math:`\phi \cdot \nabla U` has the mean `d`, whatever the lattice.

`python -m benchmarks.microcanonical.large`
"""

import argparse
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

import numpyro_scores as ns

MASS, QUARTIC = 0.5, 0.5
SMALL, LARGE = 32, 316
CHUNK = 50


def gaussian(x: Array) -> Array:
    return jnp.sum(x**2 / jnp.geomspace(0.1, 10.0, x.size)) / 2


def lattice(x: Array) -> Array:
    side = round(x.size**0.5)
    phi = x.reshape(side, side)
    steps = sum(jnp.sum((phi - jnp.roll(phi, 1, axis)) ** 2) for axis in (0, 1))
    return steps / 2 + jnp.sum(MASS * phi**2 / 2 + QUARTIC * phi**4 / 4)


POTENTIALS = {"gaussian": gaussian, "lattice": lattice}


def small_lattice(num_draws: int) -> tuple[float, float]:
    """Mean square of a site, and its standard error, by MAMS."""
    num_chains = 8
    kernel = ns.MAMS(potential_fn=lattice)
    start = random.normal(random.key(3), (num_chains, SMALL**2))
    keys = random.split(random.key(4), num_chains)
    state = jax.jit(lambda keys, z: kernel.init(keys, 300, z, (), {}))(keys, start)

    def draw(state, _):
        state = kernel.sample(state, (), {})
        return state, jnp.mean(state.z**2, axis=-1)

    _, squares = jax.jit(lambda state: lax.scan(draw, state, length=300 + num_draws))(state)
    means = np.asarray(squares[300:], float).mean(axis=0)
    return float(means.mean()), float(means.std(ddof=1) / num_chains**0.5)


def run(name: str, d: int, bias: float, num_warmup: int, num_draws: int) -> None:
    """Prints what comes of it: running means, so that no draw is kept."""
    potential = POTENTIALS[name]
    kernel = ns.MCLMC(potential_fn=potential, desired_bias=bias)
    start = random.normal(random.key(0), (d,))
    begin = time.process_time()
    state = jax.jit(lambda z: kernel.init(random.key(1), num_warmup, z, (), {}))(start)
    scale = jnp.geomspace(0.1, 10.0, d) if potential is gaussian else 1.0

    def draw(state, _):
        state = kernel.sample(state, (), {})
        return state, (jnp.mean(state.z**2 / scale), jnp.vdot(state.z, state.z_grad) / d)

    advance = jax.jit(lambda state: lax.scan(draw, state, length=CHUNK))
    for _ in range(num_warmup // CHUNK):
        state, _ = advance(state)
    seen, memory = [], []
    for _ in range(num_draws // CHUNK):
        state, figures = advance(state)
        seen.append(np.asarray(figures, float))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    figures = np.concatenate(seen, axis=1)
    mean = figures.mean(axis=1)
    truth, error = (1.0, 0.0) if potential is gaussian else small_lattice(num_draws)
    print(
        f"{name}, d = {d:,}: second moment off by {mean[0] / truth - 1:+.2%} "
        f"± {error / truth:.2%}, x . grad U / d by {mean[1] - 1:+.2%}; asked for {bias:.0%}, "
        f"variance_error {float(state.variance_error):+.2%}; largest memory after {CHUNK} draws "
        f"{memory[0]:.0f} MiB, after {num_draws} {memory[-1]:.0f} MiB; "
        f"{time.process_time() - begin:.0f} s of CPU",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bias", type=float, default=0.02)
    parser.add_argument("--num-warmup", type=int, default=300)
    parser.add_argument("--num-draws", type=int, default=300)
    args = parser.parse_args()
    for name, d in (("gaussian", 100_000), ("lattice", LARGE**2)):
        run(name, d, args.bias, args.num_warmup, args.num_draws)


if __name__ == "__main__":
    main()
