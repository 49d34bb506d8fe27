# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Coordinates without bounds of a density that has some; what knows supports fills them in."""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array


class Coordinates(NamedTuple):
    r"""
    Coordinates :math:`z`, all real, of the points of a support, :math:`x = x(z)`.

    - **to_support** - :math:`x(z)`, of one point.
    - **from_support** - :math:`z(x)`, infinite on the border of the support, see `on_border`.
    - **log_volume** - :math:`\log |\det \partial x / \partial z|` of `z` and `x`, shape `()`.
    - **free_shape** - the shape of `z` from that of `x`.
    """

    to_support: Callable[[Array], Array]
    from_support: Callable[[Array], Array]
    log_volume: Callable[[Array, Array], Array]
    free_shape: Callable[[tuple[int, ...]], tuple[int, ...]]


@singledispatch
def coordinates_of(module: Any) -> Coordinates | None:
    """
    Coordinates without bounds of the points of a distribution; None if its points have no bounds,
    and for any other callable. The distributions of NumPyro are registered where it is imported.

    :raises ValueError: if there are none.
    """
    return None


def on_border(z: Array) -> Array:
    """Which coordinates are those of the border of a support, or of no point at all."""
    # Maps that divide by what is left of a simplex keep it above the smallest number.
    return ~(jnp.abs(z) < -jnp.log(jnp.finfo(z.dtype).tiny) - 1)
