# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Preconditioning. With a metric :math:`M`, :math:`M^{-1} = R^\top R`, a kernel moves :math:`v` in
:math:`x + R^\top v`, where the metric is the identity: the gradient there is :math:`R\, \nabla U`.
The root `R` is a vector (a diagonal metric), a matrix, or None (no metric).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.util import identity


def whiten(root: Array | None, grad: Array) -> Array:
    r""":math:`R\, \nabla U`: a gradient in the coordinates of the metric."""
    if root is None:
        return grad
    return root @ grad if root.ndim == 2 else root * grad


def unwhiten(root: Array | None, v: Array) -> Array:
    r""":math:`R^\top v`: a move, out of the coordinates of the metric."""
    if root is None:
        return v
    return root.T @ v if root.ndim == 2 else root * v


def coordinates(root: Array | None, x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """
    Where `x` is in the coordinates of the metric, and the way from there back to positions. With a
    metric they are relative to `x`, so that the root need not be inverted.
    """
    if root is None:
        return x, identity
    return jnp.zeros_like(x), lambda v: x + unwhiten(root, v)


def check_inverse_mass_matrix(inverse_mass_matrix: Any, dense_mass: bool) -> np.ndarray | None:
    """
    An inverse metric as the caller gave it, on the host, or None.

    :raises ValueError: unless it is a vector of positive numbers or, with `dense_mass`, a symmetric
        positive definite matrix.
    """
    if inverse_mass_matrix is None:
        return None
    matrix = np.asarray(inverse_mass_matrix)
    ndim = 2 if dense_mass else 1
    if matrix.ndim != ndim or (dense_mass and matrix.shape[0] != matrix.shape[1]):
        wanted = "(d, d)" if dense_mass else "(d,), or a matrix with dense_mass=True"
        raise ValueError(
            f"inverse_mass_matrix must have shape {wanted}, with one entry for each unconstrained "
            f"number (sites in alphabetical order), got shape {matrix.shape}."
        )
    if dense_mass and not np.allclose(matrix, matrix.T, rtol=1e-5):
        raise ValueError("inverse_mass_matrix must be symmetric.")
    smallest = np.linalg.eigvalsh(matrix).min() if dense_mass else matrix.min()
    if not smallest > 0:
        raise ValueError(
            f"inverse_mass_matrix must be positive (definite): it is the covariance of the "
            f"unconstrained values; got {smallest} as its smallest "
            f"{'eigenvalue' if dense_mass else 'entry'}."
        )
    return matrix


def given_metric(inverse_mass_matrix: np.ndarray | None, x: Array) -> Array | None:
    """
    The inverse metric of the caller for points like `x`.

    :raises ValueError: if it is of another size.
    """
    if inverse_mass_matrix is None:
        return None
    if len(inverse_mass_matrix) != x.size:
        raise ValueError(
            f"inverse_mass_matrix is for {len(inverse_mass_matrix)} unconstrained numbers, but "
            f"there are {x.size} (sites in alphabetical order, each flattened)."
        )
    return jnp.asarray(inverse_mass_matrix, x.dtype)
