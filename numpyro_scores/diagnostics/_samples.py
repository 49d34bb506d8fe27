# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Samples as the diagnostics take them: float arrays that are finite, enough of them, alike."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_batch, check_count, check_finite


def as_samples(name: str, x: Any, at_least: int = 2) -> Array:
    """
    The samples as an array of floats, of 32 bits at least: sums over many have no digits in fewer.

    :param name: how the caller's argument is called.
    :param x: samples, shape `(n, *event_shape)`.
    :param at_least: how many are needed.
    :raises ValueError: if the shape is another, if there are too few, or if one is not finite.
    """
    check_batch(name, x)
    if len(x) < at_least:
        raise ValueError(f"{name} needs at least {at_least} samples, got {len(x)}: draw more.")
    check_finite(name, "samples", x, "find out why before you leave them out")
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(jnp.result_type(x, float), jnp.float32))


def as_flat_pair(x: Any, y: Any, at_least: int = 2) -> tuple[Array, Array]:
    """Two sets of samples, each flat: shapes `(n, d)` and `(m, d)`."""
    x, y = as_samples("x", x, at_least), as_samples("y", y, at_least)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"x and y must be samples of one space, got points of shapes {x.shape[1:]} and "
            f"{y.shape[1:]}: reshape them, or compare features of both."
        )
    return x.reshape(len(x), -1), y.reshape(len(y), -1)


def check_at_least_two(name: str, value: Any) -> None:
    """Raise unless `value` is an integer of at least 2."""
    check_count(name, value)
    if value < 2:
        raise ValueError(f"{name} must be at least 2, got {value}.")


def mapped(f: Any, x: Any, block_size: int) -> Array:
    """`f` of each point of an array, or of arrays alike, `block_size` of them at a time."""
    return jax.lax.map(f, x, batch_size=block_size)
