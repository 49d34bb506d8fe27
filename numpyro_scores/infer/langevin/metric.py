# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Preconditioning. With a metric :math:`M`, :math:`M^{-1} = R^\top R`, a kernel moves :math:`v` in
:math:`x + R^\top v`, where the metric is the identity: the gradient there is :math:`R\, \nabla U`.
The root `R` is a vector (a diagonal metric), a matrix, both by blocks, or None (no metric).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro.util import identity

from numpyro_scores.infer.langevin.blocks import (
    BlockRoot,
    Names,
    as_names,
    check_disjoint,
    check_sites,
)

Dense = bool | list[Names]
Given = np.ndarray | dict[Names, np.ndarray] | None


Root = Array | BlockRoot | None


def whiten(root: Root, grad: Array) -> Array:
    r""":math:`R\, \nabla U`: a gradient in the coordinates of the metric."""
    if root is None:
        return grad
    if isinstance(root, BlockRoot):
        return root.map(whiten, grad)
    return root @ grad if root.ndim == 2 else root * grad


def unwhiten(root: Root, v: Array) -> Array:
    r""":math:`R^\top v`: a move, out of the coordinates of the metric."""
    if root is None:
        return v
    if isinstance(root, BlockRoot):
        return root.map(unwhiten, v)
    return root.T @ v if root.ndim == 2 else root * v


def coordinates(root: Root, x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """
    Where `x` is in the coordinates of the metric, and the way from there back to positions. With a
    metric they are relative to `x`, so that the root need not be inverted.
    """
    if root is None:
        return x, identity
    return jnp.zeros_like(x), lambda v: x + unwhiten(root, v)


def check_inverse_mass_matrix(inverse_mass_matrix: Any, dense_mass: Dense) -> Given:
    """
    An inverse metric as the caller gave it, on the host, or None.

    :param dense_mass: see :func:`checked_blocks`.
    :raises ValueError: unless it is a vector of positive numbers or, with `dense_mass`, a symmetric
        positive definite matrix; or with blocks a dict of these.
    """
    if inverse_mass_matrix is None:
        return None
    if not isinstance(dense_mass, list):
        return _checked("inverse_mass_matrix", inverse_mass_matrix, dense_mass)
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


def given_metric(inverse_mass_matrix: Given, dense_mass: Dense, z: Any) -> Any:
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
