# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The points that an objective is called with, checked against the module that is trained."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._validation import check_batch, is_concrete


def as_points(x: Any) -> Array:
    """
    A batch of points as one array.

    :raises TypeError: if it is none, or of complex numbers.
    :raises ValueError: unless it has the shape `(n, *event_shape)`.
    """
    try:
        points = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "x must be one array of points, shape (n, *event_shape), got "
            f"{type(x).__name__}: {error}. A dict of points and labels is for an objective of "
            "one's own, which takes the points out of it."
        ) from error
    if jnp.issubdtype(points.dtype, jnp.complexfloating):
        raise TypeError(
            f"x must be of real numbers, got {points.dtype}: stack real and imaginary parts on an "
            "axis of their own."
        )
    check_batch("x", points)
    return points


def as_float_points(x: Any) -> Array:
    """As :func:`as_points`, of floats: integers and booleans are numbers like others."""
    return of_floats(as_points(x))


def of_floats(x: Array) -> Array:
    """An array of floats from one of any numbers."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)


def is_distribution(module: Any) -> bool:
    """Whether a module is known by its log density."""
    return hasattr(module, "log_prob")


def with_normalizers(module: Any) -> list[Any]:
    """
    The unnormalised distributions within a module, itself or beneath `expand`, `to_event`, a
    transformation or a mixture: those that have a `log_normalizer`, or could have one.
    """

    def has_one(node: Any) -> bool:
        return is_distribution(node) and hasattr(node, "log_normalizer")

    return [node for node in jax.tree.leaves(module, is_leaf=has_one) if has_one(node)]


def is_discrete(module: Any) -> bool:
    """Whether a module is a distribution of discrete points."""
    return bool(getattr(getattr(module, "support", None), "is_discrete", False))


def check_instance(module: Any) -> None:
    """
    :raises TypeError: if a module is a class, or nothing that can be called.
    """
    if isinstance(module, type):
        raise TypeError(
            f"An objective takes a module, got the class {module.__name__} itself: make one, "
            f"{module.__name__}(...)."
        )
    if not (callable(module) or is_distribution(module)):
        raise TypeError(
            "An objective takes a callable of one point or a distribution, got "
            f"{type(module).__name__}."
        )


def takes(f: Any, *args: Any) -> bool:
    """Whether a callable can be called with as many arguments; True if nobody knows."""
    try:
        # What holds another callable takes anything itself.
        signature = inspect.signature(getattr(f, "wrapped", f))
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*args)
    except TypeError:
        return False
    return True


def check_event_shape(module: Any, x: Array) -> None:
    """
    :param x: a point, only its shape matters.
    :raises ValueError: if a distribution is over other points.
    """
    batch_shape, event_shape = (
        getattr(module, name, None) for name in ("batch_shape", "event_shape")
    )
    if event_shape is not None and (batch_shape or event_shape != x.shape):
        raise ValueError(
            f"{type(module).__name__} must have the batch shape () and the event shape of the "
            f"points, {x.shape}, got batch shape {batch_shape} and event shape {event_shape}. "
            "Batch axes become event axes with to_event."
        )


def check_in_support(module: Any, x: Array) -> None:
    """
    :raises ValueError: if points that can be looked at are outside of a distribution's support.
    """
    support = getattr(module, "support", None)
    if support is None or not is_concrete(x):
        return
    inside = support(x)
    if not is_concrete(inside):
        return
    outside = np.argwhere(~np.asarray(inside).reshape(len(x), -1).all(axis=1)).ravel()
    if len(outside):
        raise ValueError(
            f"x must be in the support of {type(module).__name__}, {support}, but {len(outside)} "
            f"of {len(x)} points are not, the first at index {outside[0]}."
        )


def contained(distribution: Any, x: Array) -> Array | None:
    """Which of the points are in a distribution's support, shape `(n,)`; None if it has none."""
    support = getattr(distribution, "support", None)
    if support is None:
        return None
    return jnp.asarray(support(x)).reshape(len(x), -1).all(axis=1)
