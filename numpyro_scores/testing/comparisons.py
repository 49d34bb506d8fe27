# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Comparisons of pytrees that say in words where they differ."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def tolerance_of(tree: Any) -> float:
    """The 0.6th power of the rounding error of the floats of a pytree: 4e-10 in float64."""
    dtypes = [leaf.dtype for leaf in map(as_array, jax.tree.leaves(tree))]
    kinds = [np.finfo(dtype).eps for dtype in dtypes if np.issubdtype(dtype, np.floating)]
    return float(max(kinds, default=0.0)) ** 0.6


def assert_close(found: Any, expected: Any, what: str, tolerance: float = 0.0) -> None:
    """Raise unless two pytrees of one structure agree, NaN with NaN."""
    for name, a, b in _pairs(found, expected, what):
        if a.shape != b.shape:
            raise AssertionError(f"{what}: {name} has shape {a.shape} and not {b.shape}.")
        if not np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
            with np.errstate(invalid="ignore"):
                error = np.max(np.abs(a.astype(float) - b))
            raise AssertionError(
                f"{what}: {name} is off by up to {error:.3g} (tolerance {tolerance:.1e}): {_a(a)} "
                f"for {_a(b)}."
            )


def differ(a: Any, b: Any) -> bool:
    """Whether two pytrees of one structure differ in any value."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(not np.array_equal(as_array(x), as_array(y)) for x, y in leaves)


def assert_same_kinds(found: Any, expected: Any, what: str) -> None:
    """Raise unless two pytrees have one structure, and leaves of the same shapes and types."""
    for name, a, b in _pairs(found, expected, what):
        kinds = [f"{x.dtype}{list(x.shape)}" for x in (a, b)]
        if kinds[0] != kinds[1]:
            raise AssertionError(f"{what}: {name} is {kinds[0]} and was {kinds[1]}.")


def as_array(leaf: Any) -> Any:
    """A leaf as NumPy has it, and a random key as its numbers; what has only a shape as it is."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    leaf = jnp.asarray(leaf) if not isinstance(leaf, jax.Array | np.ndarray) else leaf
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    return np.asarray(leaf)


def _pairs(found: Any, expected: Any, what: str) -> Iterator[tuple[str, Any, Any]]:
    structures = jax.tree.structure(found), jax.tree.structure(expected)
    if structures[0] != structures[1]:
        raise AssertionError(f"{what}: the structure is {structures[0]} and not {structures[1]}.")
    of_found = jax.tree_util.tree_leaves_with_path(found)
    for (path, a), b in zip(of_found, jax.tree.leaves(expected), strict=True):
        yield jax.tree_util.keystr(path) or "it", as_array(a), as_array(b)


def _a(array: Any) -> str:
    return np.array2string(np.asarray(array), precision=6, threshold=8)
