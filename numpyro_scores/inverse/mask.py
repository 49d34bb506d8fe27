# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Some entries of a point are seen, the others are not: inpainting."""

from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from numpyro_scores._validation import as_event_shape, is_concrete
from numpyro_scores.inverse._base import LinearOperator, check_leading


def seen_indices(mask: Any) -> Array:
    """The flat indices at which a boolean mask, known when tracing, is true."""
    if not is_concrete(mask):
        raise TypeError("A mask sets the shape of the data: make the operator outside of jax.jit.")
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"A mask must be an array of bool, got {mask.dtype}: write mask > 0.")
    if not mask.any():
        raise ValueError("A mask must be true somewhere, or there are no data.")
    return jnp.asarray(np.flatnonzero(mask))


def hold_mask(operator: Any, mask: Any, in_shape: tuple[int, ...]) -> None:
    """Set what a frozen operator keeps of its mask: `in_shape`, `indices` and `mask_ndim`."""
    check_leading("mask", np.shape(mask), in_shape)
    object.__setattr__(operator, "in_shape", in_shape)
    object.__setattr__(operator, "indices", seen_indices(mask))
    object.__setattr__(operator, "mask_ndim", np.ndim(mask))


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """
    The entries of a point at which `mask` is true, in row-major order: shape `(m, *channels)`. What
    is not seen is left out of the data, rather than there as zeros with noise.

    :param mask: an array of bool, shape that of the leading axes of a point.
    :param in_shape: shape of a point; that of `mask` by default.
    """

    array_fields: ClassVar = ("indices",)
    mask: InitVar[ArrayLike]
    in_shape: Any = None
    indices: Array = field(init=False)
    mask_ndim: int = field(init=False)

    def __post_init__(self, mask):
        in_shape = (
            np.shape(mask) if self.in_shape is None else as_event_shape(self.in_shape, "in_shape")
        )
        hold_mask(self, mask, in_shape)

    def _forward(self, x: Array) -> Array:
        return x.reshape(-1, *self.in_shape[self.mask_ndim :])[self.indices]

    @property
    def singular_values(self) -> Array:
        """All are 1."""
        return jnp.ones(int(np.prod(self.out_shape)))
