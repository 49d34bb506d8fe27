# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The one place where this package compiles what a public call does, and keeps the program.

A program is kept for the *structure* of the objects that it is about: their arrays are its
arguments. What a function finds in a closure or as a global becomes part of the program, though; so
that of an opaque function, which may find other weights there the next time, is not kept.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
from jax.core import Tracer

from numpyro_scores._callable_pytrees import Static, is_dynamic
from numpyro_scores._hidden_state import Opaque, reached

# Programs that are kept; the one that was not used for longest goes first.
MAX_PROGRAMS = 512


@dataclass(frozen=True)
class _Structure:
    """What a program is compiled for."""

    method: Callable[..., Any]
    treedef: Any
    statics: tuple
    options: tuple


def compiled(method: Callable[..., Any], tree: Any, /, *args: Any, **options: Hashable) -> Any:
    """
    `method(tree, *args, **options)` as one program, which the next call with a `tree` of the same
    structure finds compiled; that of an opaque function (see :mod:`~numpyro_scores._hidden_state`)
    is compiled at each call and forgotten. For a loop, which outside of a program is compiled at
    each call anyway.

    :param method: a function of this package at module or class level.
    :param tree: a pytree, such as a distribution, or a tuple of callables and arrays. Its integers,
        booleans and strings stay what they are, since they may steer the code of a network.
    :param args: pytrees of arrays, or None.
    :param options: what else the program is compiled for.
    """
    structure, arrays = _split(method, tree, options)
    return (_kept(structure) or _new_program(structure))(arrays, args)


def compiled_if_kept(
    method: Callable[..., Any], tree: Any, /, *args: Any, **options: Hashable
) -> Any:
    """
    As :func:`compiled`, for a method without a loop: the operations one by one where the program
    could not be kept, or where there is a program about it already.
    """
    structure, arrays = _split(method, tree, options)
    program = None
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((arrays, args))):
        program = _kept(structure)
    return method(tree, *args, **options) if program is None else program(arrays, args)


def _split(method: Callable, tree: Any, options: dict[str, Any]) -> tuple[_Structure, list]:
    leaves, treedef = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if is_dynamic(leaf)]
    statics = tuple(None if is_dynamic(leaf) else Static(leaf) for leaf in leaves)
    found = tuple((name, Static(option)) for name, option in sorted(options.items()))
    return _Structure(method, treedef, statics, found), arrays


def _kept(structure: _Structure) -> Callable | None:
    """The program of a structure; None if it must not be kept."""
    try:
        captured = reached(structure.treedef, structure.statics, structure.options)
    except Opaque:
        return None
    return _program(structure, captured)


@lru_cache(maxsize=MAX_PROGRAMS)
def _program(structure: _Structure, captured: tuple) -> Callable:
    return _new_program(structure)


def _new_program(structure: _Structure) -> Callable:
    # A function of its own: JAX remembers what it has traced and compiled by the function.
    def program(arrays: Any, args: Any) -> Any:
        leaves = iter(arrays)
        leaves = [next(leaves) if s is None else s.value for s in structure.statics]
        tree = jax.tree.unflatten(structure.treedef, leaves)
        options = {name: option.value for name, option in structure.options}
        return structure.method(tree, *args, **options)

    return jax.jit(program)
