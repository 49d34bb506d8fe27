# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
The convolution of the networks of pictures, whose derivatives of any order are fast in a loop, too:

.. math::
    y_{n h o} = \sum_{i c} x_{n, h + i - p, c} \, w_{i c o},

`h`, `i` and the padding `p` being pairs, one for the height and one for the width. It is bilinear,
and belongs to a trilinear form of `x`, `w` and a cotangent of `y`. Its gradient in `x` is a
convolution with the flipped kernel, its gradient in `w` one of pictures and cotangents; they are
written here as such, with the axes in the order of every convolution forward. JAX writes them as
convolutions with other orders of axes, which XLA sorts outside of loops only: in a loop on a CPU it
compiles them to naive code, 10 to 40 times slower (`jaxlib` 0.10 to 0.12).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Padding = tuple[tuple[int, int], tuple[int, int]]
AXES = ("NHWC", "HWIO", "NHWC")


def convolution(features_in: int, features: int, kernel_size: int, **options: Any) -> nnx.Conv:
    """Flax's layer, of stride 1, with as many zeros round the picture as keep its shape."""
    size = (kernel_size, kernel_size)
    return nnx.Conv(features_in, features, size, conv_general_dilated=_same, **options)


def _same(x: Array, w: Array, *_: Any, **__: Any) -> Array:
    height, width = w.shape[0] - 1, w.shape[1] - 1
    return convolve(x, w, ((height // 2, -(-height // 2)), (width // 2, -(-width // 2))))


def convolve(x: Array, w: Array, padding: Padding) -> Array:
    """
    :param x: pictures, shape `(n, h, w, c)`.
    :param w: kernel, shape `(height, width, c, o)`.
    :param padding: number of zeros above and below, and left and right.
    :return: shape `(n, h, w, o)`, with `h` and `w` plus the padding less the kernel's plus 1.
    """
    return convolve_p.bind(x, w, padding=padding)


def kernel_gradient(x: Array, y: Array, padding: Padding) -> Array:
    """The gradient in `w` of the inner product of `y` and `convolve(x, w, padding)`."""
    return kernel_gradient_p.bind(x, y, padding=padding)


def input_gradient(y: Array, w: Array, padding: Padding) -> Array:
    """The gradient in `x` of the inner product of `y` and `convolve(x, w, padding)`."""
    flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    (top, bottom), (left, right) = padding
    height, width = w.shape[0] - 1, w.shape[1] - 1
    return convolve(y, flipped, ((height - top, height - bottom), (width - left, width - right)))


def _convolve(x: Array, w: Array, *, padding: Padding) -> Array:
    return lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=AXES)


def _kernel_gradient(x: Array, y: Array, *, padding: Padding) -> Array:
    # The points of the batch are summed over, as the channels of a convolution are.
    w = _convolve(x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), padding=padding)
    return w.transpose(1, 2, 0, 3)


def _primitive(name: str, formula: Callable[..., Array], free: Any) -> Primitive:
    """
    :param free: of each operand, an axis that isn't summed over, and where it stands in the result:
        a batch of one operand is merged into it.
    """
    primitive = Primitive(name)
    primitive.def_impl(partial(jax.jit, static_argnames="padding")(formula))
    mlir.register_lowering(primitive, mlir.lower_fun(formula, multiple_results=False))

    @primitive.def_abstract_eval
    def abstract_eval(*operands, padding):
        return jax.make_jaxpr(partial(formula, padding=padding))(*operands).out_avals[0]

    def batch(operands, axes, *, padding):
        if None not in axes:
            return jax.vmap(partial(formula, padding=padding), axes)(*operands), 0
        batched = axes.index(None) ^ 1
        (axis, axis_out), operands = free[batched], list(operands)
        stack = jnp.moveaxis(operands[batched], axes[batched], axis)
        operands[batched] = lax.collapse(stack, axis, axis + 2)
        result = primitive.bind(*operands, padding=padding)
        split = stack.shape[axis : axis + 2]
        shape = (*result.shape[:axis_out], *split, *result.shape[axis_out + 1 :])
        return result.reshape(shape), axis_out

    batching.primitive_batchers[primitive] = batch
    return primitive


convolve_p = _primitive("convolve", _convolve, free=((0, 0), (3, 3)))
kernel_gradient_p = _primitive("kernel_gradient", _kernel_gradient, free=((3, 2), (3, 3)))

# Each gets the cotangent, and the operands, of which the one in question is unknown.
ad.defbilinear(
    convolve_p,
    lambda y, x, w, *, padding: input_gradient(y, w, padding),
    lambda y, x, w, *, padding: kernel_gradient(x, y, padding),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda w, x, y, *, padding: input_gradient(y, w, padding),
    lambda w, x, y, *, padding: convolve(x, w, padding),
)
