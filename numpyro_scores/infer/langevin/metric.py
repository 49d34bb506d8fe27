# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The metric that the caller asks for: its kind, its blocks, its inverse, their checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from numpyro_scores.infer.low_rank import LowRank

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
        return _given_matrix("inverse_mass_matrix", inverse_mass_matrix, dense_mass is True)
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
        given[names] = _given_matrix(f"inverse_mass_matrix[{names}]", values, is_dense)
    check_disjoint("inverse_mass_matrix", list(given))
    check_disjoint(
        "dense_mass with inverse_mass_matrix",
        [*dense_mass, *(names for names in given if names not in dense_mass)],
    )
    return given


def _given_matrix(name: str, values: Any, is_dense: bool) -> np.ndarray:
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
