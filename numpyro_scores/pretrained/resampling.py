# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of half and of double size, `(h, w, c)`, by fixed filters."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array


def nearest_up(x: Array) -> Array:
    """Each pixel four times."""
    return x.repeat(2, 0).repeat(2, 1)


def average_down(x: Array) -> Array:
    """The mean of each square of four pixels."""
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3))


def fir_up(x: Array) -> Array:
    r"""
    Along each axis :math:`y_{2i} = (x_{i-1} + 3 x_i) / 4`, :math:`y_{2i+1} = (3 x_i + x_{i+1}) /
    4`: zeros between the pixels, and the filter (1, 3, 3, 1) of StyleGAN2 (Karras et al. 2020).
    Beyond the border are zeros.
    """
    return _along_both_axes(_fir_up, x)


def fir_down(x: Array) -> Array:
    r"""
    Along each axis :math:`y_i = (x_{2i-1} + 3 x_{2i} + 3 x_{2i+1} + x_{2i+2}) / 8`, the filter of
    :func:`fir_up` and every other pixel.
    """
    return _along_both_axes(_fir_down, x)


def fir_down_within(x: Array) -> Array:
    """:func:`fir_down` without zeros beyond the border: two pixels less before it is halved."""
    return _along_both_axes(_fir_down_within, x)


def _along_both_axes(f: Callable[[Array], Array], x: Array) -> Array:
    return f(f(x).swapaxes(0, 1)).swapaxes(0, 1)


def _padded(x: Array) -> Array:
    return jnp.pad(x, [(1, 1), *[(0, 0)] * (x.ndim - 1)])


def _fir_up(x: Array) -> Array:
    padded = _padded(x)
    even = (padded[:-2] + 3 * x) / 4
    odd = (3 * x + padded[2:]) / 4
    return jnp.stack([even, odd], 1).reshape(2 * len(x), *x.shape[1:])


def _fir_down(x: Array) -> Array:
    return _fir_down_within(_padded(x))


def _fir_down_within(x: Array) -> Array:
    return (x[:-3:2] + 3 * x[1:-2:2] + 3 * x[2:-1:2] + x[3::2]) / 8
