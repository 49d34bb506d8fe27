# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Argument checks of every floor: an error says what came, what was wanted and what to do."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer


def is_concrete(value: Any) -> bool:
    """Whether `value` can be looked at now, that is, is not a tracer of a JAX transformation."""
    return not isinstance(value, Tracer)


def as_number(value: Any) -> float:
    """`value` as one number, NaN if it is none."""
    if isinstance(value, str | bytes):  # of digits, which NumPy would read
        return math.nan
    try:
        number = np.asarray(value, float)
    except (TypeError, ValueError):  # a class, a function
        return math.nan
    return float(number) if number.shape == () else math.nan


def check_positive(name: str, value: Any) -> None:
    """Raise unless `value` is a finite positive number (a tracer passes: it has no value yet)."""
    if not is_concrete(value):
        return
    number = as_number(value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be a finite positive number, got {value!r}.")


def check_count(name: str, value: Any) -> None:
    """Raise unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def check_key(name: str, key: Any) -> Array:
    """
    `key` itself; raise unless it is one random key, of `jax.random.key` or `jax.random.PRNGKey`.

    :param name: who wants it: `"fit"`, `"DiffusionPrior.sample"`.
    """
    if _is_key(key):
        return key
    shape, dtype = jnp.shape(key) if hasattr(key, "shape") else (), getattr(key, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"{name} needs one random key, got {math.prod(shape)} of them, shape {shape}: pass "
            "one, as in keys[0], or map over them with jax.vmap."
        )
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        raise ValueError(
            f"{name} needs a random key, got the integer {key}: write jax.random.key({key})."
        )
    found = "None" if key is None else repr(key) if dtype is None else f"{dtype} of shape {shape}"
    raise ValueError(f"{name} needs a random key, got {found}. Make one with jax.random.key(0).")


def _is_key(key: Any) -> bool:
    shape, dtype = getattr(key, "shape", None), getattr(key, "dtype", None)
    if dtype is None:
        return False
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return shape == ()
    # A raw key is as long as its implementation wants it: 2 of Threefry, 4 of RBG.
    return dtype == np.uint32 and shape in ((2,), (4,))


def as_event_shape(event_shape: Sequence[int] | int, name: str = "event_shape") -> tuple[int, ...]:
    """The shape of one point as a tuple: an integer `d` means `(d,)`."""
    if isinstance(event_shape, int | np.integer) and not isinstance(event_shape, bool):
        event_shape = (int(event_shape),)
    sizes: Any = event_shape
    try:
        shape = tuple(sizes)
    except TypeError:
        raise ValueError(
            f"{name} must be a positive integer or a sequence of them, got {event_shape!r}."
        ) from None
    for size in shape:
        check_count(f"every entry of {name}", size)
    return shape


def as_sample_shape(sample_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of draws as a tuple, as NumPyro has it; raise in words for a bare number."""
    if isinstance(sample_shape, int | np.integer):
        raise ValueError(f"sample_shape must be a tuple, got {sample_shape}: ({sample_shape},).")
    return tuple(sample_shape)


def check_decreasing(name: str, levels: Any) -> None:
    """Raise unless `levels` is a strictly decreasing sequence of positive numbers."""
    if not is_concrete(levels):
        return
    levels = np.asarray(levels)
    if levels.ndim != 1 or levels.size == 0:
        raise ValueError(f"{name} must be a one-dimensional sequence, got shape {levels.shape}.")
    if not (np.all(np.isfinite(levels)) and np.all(levels > 0) and np.all(np.diff(levels) < 0)):
        raise ValueError(
            f"{name} must be finite, positive and strictly decreasing (from the largest noise "
            f"level to the smallest), got {levels}."
        )


def check_event(name: str, x: Any, event_shape: Sequence[int]) -> None:
    """Raise unless `x` is one unbatched point of `event_shape`."""
    if jnp.shape(x) != tuple(event_shape):
        raise ValueError(
            f"{name} takes one unbatched point of shape {tuple(event_shape)}, got shape "
            f"{jnp.shape(x)}. For a batch of points use jax.vmap."
        )


def check_batch(name: str, x: Any) -> None:
    """Raise unless `x` is a batch of points, shape `(n, *event_shape)` with `n >= 1`."""
    if jnp.ndim(x) < 2 or jnp.shape(x)[0] == 0:
        raise ValueError(
            f"{name} must be a batch of points of shape (n, *event_shape) with n >= 1 and at "
            f"least one event axis, got shape {jnp.shape(x)}. Scalars are points of shape (1,)."
        )


def check_finite(name: str, what: str, x: Any, advice: str) -> None:
    """Raise if an entry of some of the points along the first axis is known not to be finite."""
    if not is_concrete(x):
        return
    # NumPy looks at a constant inside jit too.
    finite = np.isfinite(np.asarray(x)).reshape(len(x), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name} must be finite, but {np.sum(~finite)} of {len(x)} {what} are not, the first "
            f"at index {np.argmin(finite)}: {advice}."
        )
