# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What kernels do with all leaves of a pytree at once, and loops over rows or steps."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

# Numbers of a chain drawn before a loop. Beyond it those of all steps would need as much memory as
# many points.
LARGEST_AT_ONCE = 2**16


def all_finite(x: Any) -> Array:
    """Whether every entry of every leaf is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(x)]))


def select(condition: Array, on_true: Any, on_false: Any) -> Any:
    """`jnp.where`, with one condition for all leaves."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), on_true, on_false)


def take(x: Any, index: Any) -> Any:
    """`leaf[index]` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], x)


def map_rows(f: Callable, x: Any, batch_size: int) -> Any:
    """`f` of each row of `x`, `batch_size` rows at once."""
    if len(jax.tree.leaves(x)[0]) <= batch_size:
        return jax.vmap(f)(x)
    return lax.map(f, x, batch_size=batch_size)


def scan_random(
    step: Callable[[Any, Any], tuple[Any, Any]],
    draw: Callable[[Array, tuple[int, ...]], Any],
    carry: Any,
    key: Array,
    num_steps: int,
) -> tuple[Any, Any]:
    """
    `lax.scan` of `step(carry, numbers)` with `numbers = draw(key, ())` for each step. As long as
    they are few, those of all steps are drawn before the loop, by `draw(key, (num_steps,))`: in a
    loop on a CPU, XLA generates the numbers of a few chains two to three times slower.
    """
    leaves = jax.tree.leaves(jax.eval_shape(lambda key: draw(key, (num_steps,)), key))
    if sum(math.prod(leaf.shape) for leaf in leaves) <= LARGEST_AT_ONCE:
        return lax.scan(step, carry, draw(key, (num_steps,)))
    keys = random.split(key, num_steps)
    return lax.scan(lambda carry, key: step(carry, draw(key, ())), carry, keys)
