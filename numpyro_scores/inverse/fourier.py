# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Some Fourier coefficients: magnetic resonance imaging."""

from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._validation import as_event_shape
from numpyro_scores.inverse._base import LinearOperator
from numpyro_scores.inverse.mask import hold_mask


@dataclass(frozen=True, eq=False)
class Fourier(LinearOperator):
    r"""
    The orthonormal discrete Fourier transform :math:`\frac{1}{\sqrt n} \sum_j x_j
    e^{-2 \pi i \langle k, j / N \rangle}` at the frequencies that `mask` selects.

    NumPyro's likelihoods are of real numbers, so the output has the **real and imaginary parts
    stacked along a last axis**, shape `(m, *channels, 2)`: `dist.Normal(fourier(x), noise)` is
    complex noise with standard deviation `noise` in each part. Data `y` that are complex, of shape
    `(m, *channels)`, become `jnp.stack([y.real, y.imag], axis=-1)`.

    :param in_shape: shape of a real point.
    :param mask: array of bool over the frequencies in the order of `jnp.fft.fftfreq` (zero first),
        shape that of the axes to transform, the leading ones; by default the first two axes (or the
        only one), all of whose frequencies are seen.
    """

    array_fields: ClassVar = ("indices",)
    in_shape: Any
    mask: InitVar[Any] = None
    indices: Array = field(init=False)
    mask_ndim: int = field(init=False)

    def __post_init__(self, mask):
        in_shape = as_event_shape(self.in_shape, "in_shape")
        hold_mask(self, np.ones(in_shape[:2], bool) if mask is None else mask, in_shape)

    def _forward(self, x: Array) -> Array:
        coefficients = jnp.fft.fftn(x, axes=tuple(range(self.mask_ndim)), norm="ortho")
        seen = coefficients.reshape(-1, *self.in_shape[self.mask_ndim :])[self.indices]
        return jnp.stack([seen.real, seen.imag], axis=-1)

    @property
    def singular_values(self) -> Array:
        r"""
        :math:`\sqrt{(P_k + P_{-k}) / 2}` for each frequency `k`, where :math:`P` is the mask: the
        point is real, so that a frequency tells of its opposite.
        """
        size = self.in_shape[: self.mask_ndim]
        seen = jnp.zeros(int(np.prod(size))).at[self.indices].set(1.0).reshape(size)
        axes = tuple(range(self.mask_ndim))
        opposite = jnp.roll(jnp.flip(seen, axes), 1, axes)
        num_channels = int(np.prod(self.in_shape[self.mask_ndim :]))
        values = jnp.repeat(jnp.sqrt((seen + opposite) / 2).ravel(), num_channels)
        return jnp.sort(values, descending=True)[: int(np.prod(self.out_shape))]
