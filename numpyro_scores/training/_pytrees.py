# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""One level of a pytree with names: those of fields, where a distribution has them."""

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpyro.distributions import Distribution
from numpyro.distributions.constraints import Constraint

from numpyro_scores._callables import CallablePytree

Path: TypeAlias = tuple[Any, ...]


def children(node: Any) -> tuple[list[tuple[str, Any]], Callable[[Sequence[Any]], Any]] | None:
    """
    The names and children of a node, sorted by name if it is a distribution, and the function from
    children to a node; None for a leaf.

    NumPyro keeps the fields of a distribution in a set of strings: their order, and with it that of
    the leaves, is another in each process.
    """
    if is_wrapper(node):
        below = children(node.wrapped)
        return below and (below[0], lambda values: type(node)(below[1](values)))
    if isinstance(node, functools.partial):
        return _children_of_partial(node)
    if isinstance(node, types.MethodType):
        return [("self", node.__self__)], lambda values: types.MethodType(node.__func__, *values)
    entries, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if len(entries) == 1 and entries[0][1] is node:
        return None
    names = [jax.tree_util.keystr(path, simple=True) for path, _ in entries]
    order = list(range(len(names)))
    if isinstance(node, Distribution):
        fields = type(node).gather_pytree_data_fields()
        if len(fields) == len(names):
            names = list(fields)
            order.sort(key=names.__getitem__)

    def rebuild(values: Sequence[Any]) -> Any:
        placed: list[Any] = [None] * len(values)
        for i, value in zip(order, values, strict=True):
            placed[i] = value
        return treedef.unflatten(placed)

    return [(names[i], entries[i][1]) for i in order], rebuild


def _children_of_partial(node: functools.partial) -> tuple[list, Callable]:
    # jax.tree_util.Partial puts a functools.partial that it is given into a box.
    boxed = getattr(node.func, "fun", None)
    function = boxed if isinstance(boxed, functools.partial) else node.func

    def rebuild(values: Sequence[Any]) -> Any:
        function, args, keywords = values
        return type(node)(function, *args, **keywords)

    return [("func", function), ("0", node.args), ("1", node.keywords)], rebuild


def is_wrapper(node: Any) -> bool:
    """Whether it is what `as_pytree` puts round a callable."""
    return isinstance(node, CallablePytree)


def map_arrays(f: Callable[[Path, Any], Any], tree: Any, path: Path = ()) -> Any:
    """The tree with `f(path, array)` for each of its arrays, those of random streams left out."""
    if isinstance(tree, nnx.RngState):
        return tree
    below = children(tree)
    if below is None:
        return f(path, tree) if isinstance(tree, Array | np.ndarray) else tree
    named, rebuild = below
    # The one child of a variable of Flax is its value, which needs no name of its own.
    is_variable = isinstance(tree, nnx.Variable)
    return rebuild(
        [map_arrays(f, child, path if is_variable else (*path, name)) for name, child in named]
    )


def is_float_array(leaf: Any) -> bool:
    """Whether it is an array of real or complex floats."""
    return isinstance(leaf, Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def is_constraint(node: Any) -> bool:
    """Whether it is a support: its bounds are arrays of a distribution, and no parameters."""
    return isinstance(node, Constraint)
