# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What kernels do with all leaves of a pytree at once."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def all_finite(x: Any) -> Array:
    """Whether every entry of every leaf is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(x)]))


def select(condition: Array, on_true: Any, on_false: Any) -> Any:
    """`jnp.where`, with one condition for all leaves."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), on_true, on_false)


def take(x: Any, index: Any) -> Any:
    """`leaf[index]` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], x)
