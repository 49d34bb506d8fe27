# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Means of blocks of pixels: super-resolution."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._validation import as_event_shape, check_count
from numpyro_scores.inverse._base import LinearOperator


@dataclass(frozen=True, eq=False)
class Downsample(LinearOperator):
    """
    The means of blocks of pixels.

    :param in_shape: shape of a point.
    :param factor: the size of a block along the first two axes (or the only one); or a tuple, along
        as many leading axes. It must divide the sizes of these axes.
    """

    in_shape: Any
    factor: Any

    def __post_init__(self):
        in_shape = as_event_shape(self.in_shape, "in_shape")
        factor = self.factor
        factor = tuple(factor) if np.ndim(factor) else (factor,) * min(2, len(in_shape))
        for size in factor:
            check_count("factor", size)
        if len(factor) > len(in_shape) or any(
            n % k for n, k in zip(in_shape, factor, strict=False)
        ):
            raise ValueError(
                f"factor {factor} must divide the leading axes of in_shape {in_shape}: crop or pad "
                "the picture."
            )
        object.__setattr__(self, "in_shape", in_shape)
        object.__setattr__(self, "factor", factor)

    def _forward(self, x: Array) -> Array:
        for axis, size in enumerate(self.factor):
            shape = (*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :])
            x = jnp.mean(x.reshape(shape), axis + 1)
        return x

    @property
    def singular_values(self) -> Array:
        r"""All are :math:`1 / \sqrt n` with `n` pixels in a block."""
        return jnp.full(int(np.prod(self.out_shape)), np.prod(self.factor) ** -0.5)
