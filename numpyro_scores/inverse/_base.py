# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What forward operators share: one point in a subclass, batches and checks here."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from numpyro_scores._callables import mapped_over
from numpyro_scores._pytrees_by_fields import pytree_of
from numpyro_scores._validation import is_concrete


class ForwardOperator(ABC):
    """
    A function of points of `in_shape` with values of `out_shape`. A subclass is a frozen dataclass
    with `eq=False` that writes `_forward` of one point and names its arrays in `array_fields`; they
    are the leaves of the pytree, and the rest, which must be hashable, is static.
    """

    array_fields: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:  # a field of every subclass

        @property
        def in_shape(self) -> Any: ...

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        pytree_of(*cls.array_fields)(cls)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The shape of what one point of `in_shape` becomes."""
        return jax.eval_shape(self._forward, jnp.zeros(self.in_shape)).shape

    @abstractmethod
    def _forward(self, x: Array) -> Array:
        """The value at one point."""

    def __call__(self, x: ArrayLike) -> Array:
        """
        :param x: real points, shape `(*batch_shape, *in_shape)`.
        :return: shape `(*batch_shape, *out_shape)`.
        :raises ValueError: if `x` has another shape.
        """
        return self._map(self._forward, f"{type(self).__name__}(x)", x, self.in_shape)

    def _map(self, f: Any, name: str, x: ArrayLike, shape: tuple[int, ...]) -> Array:
        x = jnp.asarray(x)
        num_batch_axes = x.ndim - len(shape)
        if num_batch_axes < 0 or x.shape[num_batch_axes:] != shape:
            raise ValueError(
                f"{name} takes points of shape {shape}, with any batch axes before, got shape "
                f"{x.shape}. This operator maps {self.in_shape} to {self.out_shape}."
            )
        if jnp.iscomplexobj(x):
            raise TypeError(
                f"{name} takes real points, got {x.dtype}. Give the real and imaginary parts an "
                "axis of their own."
            )
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            x = x.astype(float)
        return mapped_over(f, num_batch_axes)(x)


class LinearOperator(ForwardOperator):
    """A linear forward operator: it has an adjoint, and perhaps known singular values."""

    def adjoint(self, y: ArrayLike) -> Array:
        r"""
        :math:`A^T y`, with :math:`\langle A x, y \rangle = \langle x, A^T y \rangle`: the
        transpose of the program itself, so that it is exact.

        :param y: shape `(*batch_shape, *out_shape)`.
        :return: shape `(*batch_shape, *in_shape)`.
        :raises ValueError: if `y` has another shape.
        """

        def transposed(y):
            x = jax.ShapeDtypeStruct(self.in_shape, y.dtype)
            (x,) = jax.linear_transpose(lambda x: self._forward(x).astype(y.dtype), x)(y)
            return x

        return self._map(transposed, f"{type(self).__name__}.adjoint(y)", y, self.out_shape)

    @property
    def singular_values(self) -> Array:
        """
        The `min(in, out)` singular values, from large to small.

        :raises NotImplementedError: where no formula is known.
        """
        raise NotImplementedError(
            f"The singular values of this {type(self).__name__} have no formula here. Of a small "
            "one take those of its matrix, jax.jacobian(operator)(jnp.zeros(operator.in_shape))."
        )


def check_numbers(name: str, array: Array) -> None:
    """Raise unless the array is of finite real numbers, at least one (a tracer has no value)."""
    if jnp.iscomplexobj(array):
        raise TypeError(f"{name} must be of real numbers, got {array.dtype}.")
    if array.size == 0:
        raise ValueError(f"{name} must have at least one entry, got shape {array.shape}.")
    if is_concrete(array) and not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be of finite numbers, got {array}.")


def check_leading(name: str, leading: tuple[int, ...], in_shape: tuple[int, ...]) -> None:
    """Raise unless the points of `in_shape` start with the axes `leading`."""
    if in_shape[: len(leading)] != leading:
        raise ValueError(
            f"{name} has shape {leading}, which must be that of the leading axes of in_shape, got "
            f"in_shape {in_shape}."
        )
