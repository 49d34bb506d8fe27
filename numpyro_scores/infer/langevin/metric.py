# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Preconditioning. With a metric :math:`M`, :math:`M^{-1} = R^\top R`, a kernel moves :math:`v` in
:math:`x + R^\top v`, where the metric is the identity: the gradient there is :math:`R\, \nabla U`.
The root `R` is a vector (a diagonal metric), a matrix, both by blocks of sites as in NumPyro's
`dense_mass=[("a", "b"), ("c",)]`, or None (no metric).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro.util import identity

from numpyro_scores.infer.low_rank import LowRank, LowRankRoot

Names = tuple[str, ...]
Setting = bool | list[Names] | LowRank
Given = np.ndarray | dict[Names, np.ndarray] | None


@dataclass(frozen=True)
class Diagonal:
    """A diagonal metric, of the variances of the draws of warmup."""


@dataclass(frozen=True)
class Dense:
    """
    A metric of the covariance of the draws of warmup.

    :param blocks: tuples of names of sites that have one together, all others a diagonal: NumPyro's
        `dense_mass=[("a", "b")]`. By default one of all sites.
    """

    blocks: tuple[Names, ...] = ()


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


Root = Array | BlockRoot | LowRankRoot | None


def whiten(root: Root, grad: Array) -> Array:
    r""":math:`R\, \nabla U`: a gradient in the coordinates of the metric."""
    if root is None:
        return grad
    if isinstance(root, BlockRoot):
        return root.map(whiten, grad)
    if isinstance(root, LowRankRoot):
        return root.whiten(grad)
    return root @ grad if root.ndim == 2 else root * grad


def unwhiten(root: Root, v: Array) -> Array:
    r""":math:`R^\top v`: a move, out of the coordinates of the metric."""
    if root is None:
        return v
    if isinstance(root, BlockRoot):
        return root.map(unwhiten, v)
    if isinstance(root, LowRankRoot):
        return root.unwhiten(v)
    return root.T @ v if root.ndim == 2 else root * v


def coordinates(root: Root, x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """
    Where `x` is in the coordinates of the metric, and the way from there back to positions. With a
    metric they are relative to `x`, so that the root need not be inverted.
    """
    if root is None:
        return x, identity
    return jnp.zeros_like(x), lambda v: x + unwhiten(root, v)


def checked_metric(metric: Any, dense_mass: Any, inverse_mass_matrix: Any) -> Setting:
    """
    What NumPyro's `dense_mass` says: True, False, or blocks as tuples of names; or `metric` in its
    place.

    :raises ValueError: if it is none of these, if both are given, or if a site is in two blocks.
    """
    if metric is None:
        return _checked_blocks(dense_mass, inverse_mass_matrix)
    if dense_mass is not False:
        raise ValueError(
            f"dense_mass={dense_mass!r} is the metric Dense in NumPyro's words: give it or metric="
            f"{metric!r}, not both."
        )
    if isinstance(metric, Dense):
        return _checked_blocks(metric.blocks or True, inverse_mass_matrix)
    if isinstance(metric, Diagonal | LowRank):
        if isinstance(inverse_mass_matrix, Mapping):
            raise ValueError(
                f"inverse_mass_matrix by block of sites needs metric=Dense(blocks), got {metric!r}."
            )
        return metric if isinstance(metric, LowRank) else False
    raise ValueError(f"metric must be Diagonal(), Dense() or LowRank(rank=...), got {metric!r}.")


def _checked_blocks(dense_mass: Any, inverse_mass_matrix: Any) -> bool | list[Names]:
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


def check_inverse_mass_matrix(inverse_mass_matrix: Any, dense_mass: Setting) -> Given:
    """
    An inverse metric as the caller gave it, on the host, or None.

    :param dense_mass: see :func:`checked_metric`.
    :raises ValueError: unless it is a vector of positive numbers or, with `dense_mass`, a symmetric
        positive definite matrix; or with blocks a dict of these.
    """
    if inverse_mass_matrix is None:
        return None
    if not isinstance(dense_mass, list):
        return _checked("inverse_mass_matrix", inverse_mass_matrix, dense_mass is True)
    if not isinstance(inverse_mass_matrix, Mapping):
        raise ValueError(
            f"With the blocks dense_mass={dense_mass}, inverse_mass_matrix must be a dict by "
            f"block, {{{dense_mass[0]}: matrix}}, got {type(inverse_mass_matrix).__name__}."
        )
    given = {}
    for key, values in inverse_mass_matrix.items():
        names = as_names("inverse_mass_matrix", key)
        is_dense = names in dense_mass
        if is_dense and np.ndim(values) == 1:  # as NumPyro
            values = np.diag(values)
        given[names] = _checked(f"inverse_mass_matrix[{names}]", values, is_dense)
    check_disjoint("inverse_mass_matrix", list(given))
    check_disjoint(
        "dense_mass with inverse_mass_matrix",
        [*dense_mass, *(names for names in given if names not in dense_mass)],
    )
    return given


def _checked(name: str, values: Any, is_dense: bool) -> np.ndarray:
    matrix = np.asarray(values)
    ndim = 2 if is_dense else 1
    if matrix.ndim != ndim or (is_dense and matrix.shape[0] != matrix.shape[1]):
        wanted = "(d, d)" if is_dense else "(d,), or a matrix with dense_mass=True"
        raise ValueError(
            f"{name} must have shape {wanted}, with one entry for each unconstrained "
            f"number (sites in alphabetical order), got shape {matrix.shape}."
        )
    if is_dense and not np.allclose(matrix, matrix.T, rtol=1e-5):
        raise ValueError(f"{name} must be symmetric.")
    smallest = np.linalg.eigvalsh(matrix).min() if is_dense else matrix.min()
    if not smallest > 0:
        raise ValueError(
            f"{name} must be positive (definite): it is the covariance of the "
            f"unconstrained values; got {smallest} as its smallest "
            f"{'eigenvalue' if is_dense else 'entry'}."
        )
    return matrix


def given_metric(inverse_mass_matrix: Given, dense_mass: Setting, z: Any) -> Any:
    """
    The inverse metric of the caller for values like `z`.

    :raises ValueError: if it is of another size, or of other sites.
    """
    x, _ = ravel_pytree(z)
    if isinstance(dense_mass, list):
        given: dict = inverse_mass_matrix if isinstance(inverse_mass_matrix, dict) else {}
        check_sites(dense_mass, given, z)
        return {names: jnp.asarray(values, x.dtype) for names, values in given.items()}
    if inverse_mass_matrix is None:
        return None
    if len(inverse_mass_matrix) != x.size:
        raise ValueError(
            f"inverse_mass_matrix is for {len(inverse_mass_matrix)} unconstrained numbers, but "
            f"there are {x.size} (sites in alphabetical order, each flattened)."
        )
    return jnp.asarray(inverse_mass_matrix, x.dtype)
