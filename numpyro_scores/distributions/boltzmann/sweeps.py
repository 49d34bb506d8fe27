# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sweeps of Gibbs sampling over blocks."""

from collections.abc import Callable

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax, random


def gibbs_sweeps(
    conditional: Callable[[int, tuple[Array, ...]], dist.Distribution],
    key: Array,
    blocks: tuple[Array, ...],
    num_sweeps: int,
) -> tuple[Array, ...]:
    """
    The blocks after some sweeps of Gibbs sampling.

    :param conditional: of block `k` given the blocks, `conditional(k, blocks)`.
    """

    def sweep(blocks, key):
        for k, key_block in enumerate(random.split(key, len(blocks))):
            block = jnp.asarray(conditional(k, blocks).sample(key_block), blocks[k].dtype)
            blocks = (*blocks[:k], block, *blocks[k + 1 :])
        return blocks, None

    return lax.scan(sweep, blocks, random.split(key, num_sweeps))[0]
