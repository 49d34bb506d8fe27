# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Intensities of diffraction: the phases of a Fourier transform are lost."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import as_event_shape, check_count
from numpyro_scores.inverse._base import ForwardOperator


@dataclass(frozen=True, eq=False)
class PhaseRetrieval(ForwardOperator):
    r"""
    :math:`|F P x|^2`: the intensities of the orthonormal Fourier transform of a point padded with
    zeros to `oversampling` times its size along the first two axes (or the only one).

    It is not linear: there is no adjoint, `jax.vjp` gives the derivative. It is smooth everywhere,
    which the amplitude :math:`|F P x|`, its square root, is not where it is zero. It cannot tell a
    point from its negative, from its shifts, or from its mirror image: expect several modes.

    :param in_shape: shape of a real point.
    :param oversampling: 2 is what uniqueness asks for (Hayes 1982, "The reconstruction of a
        multidimensional sequence from the phase or magnitude of its Fourier transform").
    """

    in_shape: Any
    oversampling: int = 2

    def __post_init__(self):
        object.__setattr__(self, "in_shape", as_event_shape(self.in_shape, "in_shape"))
        check_count("oversampling", self.oversampling)

    def _forward(self, x: Array) -> Array:
        axes = tuple(range(min(2, x.ndim)))
        shape = tuple(self.oversampling * self.in_shape[axis] for axis in axes)
        coefficients = jnp.fft.fftn(x, shape, axes, norm="ortho")
        return coefficients.real**2 + coefficients.imag**2
