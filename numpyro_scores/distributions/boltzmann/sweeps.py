# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sweeps of Gibbs sampling over blocks."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax, random
from jax.extend.random import threefry_2x32

from numpyro_scores.distributions.boltzmann.states import Spin, from_uniform

# Random numbers drawn at once, before the sweeps that use them: in a loop XLA makes those of a few
# thousand sites at half the speed on a CPU. More than these leave its cache.
LARGEST_AT_ONCE = 2**16

Conditional = Callable[[int, tuple[Array, ...]], dist.Distribution]


def gibbs_sweeps(
    conditional: Conditional, key: Array, blocks: tuple[Array, ...], num_sweeps: int
) -> tuple[Array, ...]:
    """
    The blocks after some sweeps of Gibbs sampling.

    :param conditional: of block `k` given the blocks, `conditional(k, blocks)`.
    """
    at_once = min(LARGEST_AT_ONCE // max(sum(x.size for x in blocks), 1), num_sweeps)
    # One sweep alone has no loop.
    by_uniforms = at_once > 1 and all(
        _has_two_states(conditional, k, blocks) for k in range(len(blocks))
    )

    def sweep(blocks, numbers):
        for k, number in enumerate(numbers):
            d = conditional(k, blocks)
            block = from_uniform(d, number) if by_uniforms else d.sample(number)
            blocks = (*blocks[:k], jnp.asarray(block, blocks[k].dtype), *blocks[k + 1 :])
        return blocks, None

    def sweep_by_key(blocks, key):
        return sweep(blocks, random.split(key, len(blocks)))

    def some_sweeps(blocks, key, num_sweeps):
        keys = random.split(key, len(blocks))
        pairs = zip(keys, blocks, strict=True)
        numbers = tuple(uniforms(key, (num_sweeps, *x.shape), x.dtype) for key, x in pairs)
        return lax.scan(sweep, blocks, numbers)

    if not by_uniforms:
        return lax.scan(sweep_by_key, blocks, random.split(key, num_sweeps))[0]
    num_rounds, rest = divmod(num_sweeps, at_once)
    key_rounds, key_rest = random.split(key)
    blocks, _ = lax.scan(
        lambda blocks, key: (some_sweeps(blocks, key, at_once)[0], None),
        blocks,
        random.split(key_rounds, num_rounds),
    )
    return some_sweeps(blocks, key_rest, rest)[0] if rest else blocks


def _has_two_states(conditional: Conditional, k: int, blocks: tuple[Array, ...]) -> bool:
    """Whether a number that is uniform in [0, 1) draws an element of the block."""
    kinds: list[Any] = []
    jax.eval_shape(lambda blocks: kinds.append(conditional(k, blocks)), blocks)
    (d,) = kinds
    return isinstance(d, Spin | dist.BernoulliLogits) and d.batch_shape == blocks[k].shape


def uniforms(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """
    `random.uniform`, of single precision twice as fast: of each two words that Threefry makes from
    a key JAX keeps one, so that the numbers do not depend on how an array is laid over devices.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype if jnp.issubdtype(dtype, jnp.floating) else float)
    is_threefry = "threefry2x32" in str(random.key_impl(key))
    if dtype != jnp.float32 or not is_threefry:
        return random.uniform(key, shape, dtype)
    data = random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    words = threefry_2x32(data, jnp.arange(math.prod(shape), dtype=jnp.uint32))
    # The leading 23 bits as those of a number in [1, 2).
    bits = (words >> 9) | jnp.uint32(0x3F800000)
    return (lax.bitcast_convert_type(bits, jnp.float32) - 1).reshape(shape)
