# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Objects as pytrees of some of their attributes, the others static."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from jax.tree_util import register_pytree_node

T = TypeVar("T", bound=type)


def pytree_of(*names: str) -> Callable[[T], T]:
    """
    A class decorator: the attributes of these names are children of the pytree, and all others,
    which must be hashable, are static.
    """

    def register(cls: T) -> T:
        register_pytree_node(cls, partial(_flatten, names), partial(_unflatten, cls, names))
        return cls

    return register


def _flatten(names: tuple[str, ...], value: Any) -> tuple[tuple, tuple]:
    fields = vars(value)
    static = tuple((name, field) for name, field in fields.items() if name not in names)
    return tuple(fields[name] for name in names), static


def _unflatten(cls: Any, names: tuple[str, ...], static: tuple, children: tuple) -> Any:
    # Not by the constructor: JAX also builds pytrees of things that are not arrays.
    value = object.__new__(cls)
    vars(value).update(zip(names, children, strict=True))
    vars(value).update(static)
    return value
