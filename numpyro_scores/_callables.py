# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies, scores and denoisers are *any callable*: here they become pytrees with known outputs.

A distribution crosses ``jax.jit`` as a pytree. The weights of a callable must therefore be leaves,
and its identity must be stable, or every call would compile again.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Energy: TypeAlias = Callable[[Array], Array]
Score: TypeAlias = Callable[[Array], Array]
Denoiser: TypeAlias = Callable[[Array, Any], Array]


def as_pytree(name: str, f: Any) -> Any:
    """
    Return `f` as a callable pytree whose leaves are arrays: a module that is one already comes back
    unchanged, a plain function as a `jax.tree_util.Partial`, and a `functools.partial` over arrays
    and functions as one whose leaves are the arrays. A pytree that holds functions (an activation,
    say, or a network in a `Partial`) has each of them as a `Partial`.

    :raises TypeError: if `f` can't be called.
    """
    if not callable(f):
        raise TypeError(f"{name} must be callable, got {type(f).__name__}.")
    if isinstance(f, functools.partial) and not isinstance(f, jax.tree_util.Partial):
        args, keywords = held = _functions_as_pytrees(name, (f.args, f.keywords))
        if all(isinstance(leaf, Array | np.ndarray | float) for leaf in jax.tree.leaves(held)):
            return jax.tree_util.Partial(_call, as_pytree(name, f.func), *args, **keywords)
        # An option such as mode="same" is no leaf of a pytree: hold it as part of the function.
        return jax.tree_util.Partial(f)
    leaves = jax.tree.leaves(f)
    is_its_own_leaf = len(leaves) == 1 and leaves[0] is f
    if is_its_own_leaf:
        return jax.tree_util.Partial(f)
    return _functions_as_pytrees(name, f) if any(map(callable, leaves)) else f


def _functions_as_pytrees(name: str, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: as_pytree(name, leaf) if callable(leaf) else leaf, tree)


def _call(f: Any, *args: Any, **kwargs: Any) -> Any:
    return f(*args, **kwargs)


def as_score(f: Callable[[Array], Array], x: Array) -> Score:
    r"""
    The score of an energy or of a score, told apart by the shape of `f(x)`: `()` is an energy
    :math:`E`, whose score is :math:`-\nabla E`; the shape of `x` is the score itself.

    :param f: an energy or a score, on one unbatched point.
    :param x: a point, only its shape and dtype matter.
    :raises ValueError: if `f(x)` has another shape.
    """
    shape = jax.eval_shape(f, x).shape
    if shape == jnp.shape(x):
        return f
    if shape == ():
        return lambda x: -jax.grad(f)(x)
    raise ValueError(
        f"Expected an energy, x -> (), or a score, x -> {jnp.shape(x)}, for points of shape "
        f"{jnp.shape(x)}, but the output has shape {shape}. The callable must take one unbatched "
        "point; batches are mapped with jax.vmap."
    )


def check_field(name: str, f: Callable[..., Array], x: Array, *args: Array) -> None:
    """Raise unless the vector field `f(x, *args)` has the shape of `x` (nothing is computed)."""
    found = jax.eval_shape(f, x, *args)
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise TypeError(
            f"{name} must return one array of the shape of its point, {jnp.shape(x)}, got "
            f"{type(found).__name__}."
        )
    if found.shape != jnp.shape(x):
        raise ValueError(
            f"{name} must map one point to the same shape: it got shape {jnp.shape(x)} and "
            f"returned shape {found.shape}."
        )
