# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A function of points, each with a random key of its own, all at once or so many at a time."""

import math
from typing import Any

import jax
from jax import Array, random

from numpyro_scores._validation import check_count


def map_with_keys(
    f: Any, x: Array, key: Array | None, batch_shape: tuple[int, ...], batch_size: int | None
) -> Array:
    """`f(x, key)` of each point with a key of its own, all at once or so many at a time."""
    if not batch_shape:
        return f(x, key)
    keys = None if key is None else random.split(key, batch_shape)
    points, keys = jax.tree.map(
        lambda a: a.reshape(math.prod(batch_shape), *a.shape[len(batch_shape) :]), (x, keys)
    )
    if batch_size is None:
        found = jax.vmap(f, in_axes=(0, None if key is None else 0))(points, keys)
    else:
        found = jax.lax.map(lambda xs: f(*xs), (points, keys), batch_size=batch_size)
    return found.reshape(*batch_shape, *found.shape[1:])


def check_batch_size(batch_size: Any) -> None:
    if batch_size is not None:
        check_count("batch_size", batch_size)
