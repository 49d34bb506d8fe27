# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the fields of a configuration may hold. JSON has no types that would tell."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import jax.numpy as jnp


class Kind(NamedTuple):
    """
    :param words: what a value must be.
    :param holds: whether one is.
    """

    words: str
    holds: Callable[[Any], bool]

    def or_none(self) -> "Kind":
        """The same, or null."""
        return Kind(f"{self.words} or null", lambda value: value is None or self.holds(value))


def is_whole(value: Any, least: int = 0) -> bool:
    """Whether a value is a whole number from `least` on; `True` is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any, least: float = -math.inf) -> bool:
    """Whether a value is a real number from `least` on; `True` is none, nor is NaN."""
    return isinstance(value, Real) and not isinstance(value, bool) and float(value) >= least


def _all_counts(value: Any) -> bool:
    return isinstance(value, tuple) and all(is_whole(n, 1) for n in value)


COUNT = Kind("a positive whole number", lambda value: is_whole(value, 1))
COUNT_OR_ZERO = Kind("a whole number, 0 or more", is_whole)
COUNTS = Kind("a list of positive whole numbers", lambda value: value != () and _all_counts(value))
COUNTS_OR_NONE = Kind("a list of positive whole numbers, empty or not", _all_counts)
NAMES = Kind("a list of names", lambda value: isinstance(value, tuple))
NUMBER = Kind("a number", is_number)
NUMBER_OR_ZERO = Kind("a number, 0 or more", lambda value: is_number(value, 0))
POSITIVE = Kind("a positive number", lambda value: is_number(value, 0) and value != 0)
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))


def check_kinds(values: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """
    :raises ValueError: if a value is of another kind, which is named; absent ones are not missed.
    """
    for name, kind in kinds.items():
        if name in values and not kind.holds(values[name]):
            raise ValueError(f"{name} must be {kind.words}, got {values[name]!r}.")


def dtype_of_computations(dtype: Any) -> Any:
    """
    :param dtype: as a user gives it, or None for that of the point.
    :raises ValueError: if it is none of floating-point numbers.
    """
    if dtype is None:
        return None
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = jnp.dtype(bool)
    if not jnp.issubdtype(found, jnp.floating):
        raise ValueError(
            f"dtype must be one of floating-point numbers, such as jnp.bfloat16, got {dtype!r}."
        )
    return found
