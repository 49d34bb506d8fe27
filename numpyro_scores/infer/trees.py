# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What kernels do with all leaves of a pytree at once, and a loop over rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


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
