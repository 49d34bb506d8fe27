# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Checkerboard sweeps of an Ising torus by hamon 0.12 (`pip install hamon`, Python 3.12+)."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array


def is_there() -> bool:
    try:
        import hamon  # noqa: F401
    except ImportError:
        return False
    return True


def sweeps(side: int, coupling: float, num_chains: int, num_sweeps: int) -> Callable:
    """From a key to the spins after so many sweeps, shape `(num_chains, side, side)`."""
    import hamon
    from hamon.models.ising import IsingEBM, IsingSamplingProgram
    from hamon.pgm import SpinNode

    nodes = np.array([SpinNode() for _ in range(side**2)], object).reshape(side, side)
    beside = [np.roll(nodes, -1, axis) for axis in (0, 1)]
    edges = [pair for other in beside for pair in zip(nodes.ravel(), other.ravel(), strict=True)]
    energy = IsingEBM(
        list(nodes.ravel()),
        edges,
        biases=jnp.zeros(side**2),
        weights=jnp.full(len(edges), coupling),
        beta=jnp.array(1.0),
    )
    colour = np.add.outer(np.arange(side), np.arange(side)) % 2
    blocks = [hamon.Block(list(nodes[colour == k])) for k in (0, 1)]
    program = IsingSamplingProgram(energy, blocks, clamped_blocks=[])
    # All sweeps are of its warmup: the only sample is what they end in.
    schedule = hamon.SamplingSchedule(n_warmup=num_sweeps, n_samples=1, steps_per_sample=1)
    start = [jnp.ones((num_chains, len(block)), bool) for block in blocks]

    def run(key: Array) -> Array:
        if num_chains == 1:
            single = [spins[0] for spins in start]
            ends = hamon.sample_states(key, program, schedule, single, [], blocks)
        else:
            ends = hamon.sample_states_batched(key, program, schedule, start, [], blocks)
        spins = jnp.zeros((num_chains, side, side), int)
        for k, end in enumerate(ends):
            values = jnp.asarray(end).reshape(num_chains, -1)
            spins = spins.at[:, colour == k].set(2 * values.astype(int) - 1)
        return spins

    return run
