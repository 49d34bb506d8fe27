# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
NumPyro's structured metrics: `dense_mass=[("a", "b"), ("c",)]`, blocks of sites that are
correlated, with a diagonal for all others, and an `inverse_mass_matrix` by block.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Names = tuple[str, ...]


@partial(jax.tree_util.register_dataclass, data_fields=("roots",), meta_fields=("slices",))
@dataclass(frozen=True)
class BlockRoot:
    """
    The root of a metric of blocks.

    :param roots: of each block, a vector or a matrix.
    :param slices: of each block, begin and end of its sites in the vector of all.
    """

    roots: tuple[Array, ...]
    slices: tuple[tuple[tuple[int, int], ...], ...]

    def map(self, f: Callable[[Array, Array], Array], v: Array) -> Array:
        """`f(root, v)` in each block."""
        result = jnp.zeros_like(v)
        for root, slices in zip(self.roots, self.slices, strict=True):
            rows = np.concatenate([np.arange(*ends) for ends in slices])
            result = result.at[rows].set(f(root, v[rows]))
        return result


def flat_root(root: Any, z: Any) -> Any:
    """The root of an adapted metric, by block if it is NumPyro's dict, for `z` as one vector."""
    if not isinstance(root, dict):
        return root
    slices, end = {}, 0
    for name in sorted(z):
        begin, end = end, end + jnp.size(z[name])
        slices[name] = begin, end
    return BlockRoot(
        tuple(root.values()), tuple(tuple(slices[name] for name in names) for names in root)
    )


def checked_blocks(dense_mass: Any, inverse_mass_matrix: Any) -> bool | list[Names]:
    """
    What NumPyro's `dense_mass` says: True, False, or blocks as tuples of names.

    :raises ValueError: if it is none of these, or if a site is in two blocks.
    """
    if isinstance(dense_mass, bool | np.bool_):
        if not isinstance(inverse_mass_matrix, Mapping):
            return bool(dense_mass)
        if dense_mass:
            raise ValueError(
                "inverse_mass_matrix by block of sites needs dense_mass=[...], the blocks of it "
                f"that are matrices; got dense_mass=True, blocks {list(inverse_mass_matrix)}."
            )
        dense_mass = []
    if isinstance(dense_mass, str) or not isinstance(dense_mass, Sequence):
        raise ValueError(
            'dense_mass must be True, False or a list of tuples of site names, such as [("a", '
            f'"b")] for a matrix of the sites a and b; got {dense_mass!r}.'
        )
    blocks = [as_names("dense_mass", names) for names in dense_mass]
    check_disjoint("dense_mass", blocks)
    return blocks if blocks or isinstance(inverse_mass_matrix, Mapping) else False


def as_names(argument: str, names: Any) -> Names:
    """A block of sites; of one site its name does."""
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"A block of {argument} is a tuple of names of sites, got {names!r}.")
    return tuple(names)


def check_disjoint(argument: str, blocks: Sequence[Names]) -> None:
    names = [name for block in blocks for name in block]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{argument} has the sites {twice} twice: {blocks}.")


def check_sites(dense_mass: Sequence[Names], given: Mapping[Names, Any], z: Any) -> None:
    """
    Raise unless the blocks are of latent sites.

    :param z: unconstrained values by site.
    """
    if not isinstance(z, Mapping):
        raise ValueError(
            "Blocks of sites need a model, or init_params that are a dict of values by name, got "
            f"{type(z).__name__}."
        )
    named = {name for block in [*dense_mass, *given] for name in block}
    if unknown := sorted(named - set(z)):
        raise ValueError(
            f"dense_mass or inverse_mass_matrix names {unknown}, but the latent sites of this "
            f"kernel are {sorted(z)}."
        )
    for block, values in given.items():
        size = sum(jnp.size(z[name]) for name in block)
        if len(values) != size:
            raise ValueError(
                f"inverse_mass_matrix[{block}] is for {len(values)} unconstrained numbers, but "
                f"these sites have {size}."
            )
