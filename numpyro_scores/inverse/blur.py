# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Convolution with a kernel: deblurring."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from numpyro_scores._validation import as_event_shape, check_count, check_positive
from numpyro_scores.inverse._base import LinearOperator, check_numbers


def gaussian_kernel(std: ArrayLike, radius: int, ndim: int = 2) -> Array:
    r"""
    :math:`k_i \propto e^{-|i|^2 / (2 s^2)}` for integer :math:`i`, with sum 1.

    :param std: standard deviation :math:`s` in pixels, one number; may be traced, a latent site
        for example. For several kernels use `jax.vmap`.
    :param radius: the kernel has `2 * radius + 1` entries along each axis.
    :param ndim: number of axes.
    """
    if jnp.shape(std) != ():
        raise ValueError(
            f"std must be one number, got shape {jnp.shape(std)}. For a batch of kernels write "
            "jax.vmap(lambda std: gaussian_kernel(std, radius))(std)."
        )
    check_positive("std", std)
    check_count("radius", radius)
    check_count("ndim", ndim)
    line = jnp.exp(-0.5 * (jnp.arange(-radius, radius + 1) / std) ** 2)
    kernel = jnp.ones(())
    for _ in range(ndim):
        kernel = kernel[..., None] * line
    return kernel / jnp.sum(kernel)


@dataclass(frozen=True, eq=False)
class Blur(LinearOperator):
    r"""
    The convolution :math:`y_i = \sum_j k_j x_{i - j}`, with the origin of the kernel at entry
    `size // 2` along each axis. Beyond its border a picture goes on periodically, or is zero. By
    the fast Fourier transform.

    :param kernel: shape `(k_1, ..., k_r)`; may be traced, a latent site for example.
    :param in_shape: shape of a point, at least `r` axes; the kernel acts on the first `r`.
    :param periodic: whether the picture goes on periodically.
    """

    array_fields: ClassVar = ("kernel",)
    kernel: Any
    in_shape: Any
    periodic: bool = True

    def __post_init__(self):
        object.__setattr__(self, "kernel", jnp.asarray(self.kernel))
        object.__setattr__(self, "in_shape", as_event_shape(self.in_shape, "in_shape"))
        check_numbers("kernel", self.kernel)
        if not isinstance(self.periodic, bool | np.bool_):
            raise TypeError(f"periodic must be True or False, got {self.periodic!r}.")
        shape, size = self.kernel.shape, self.in_shape[: self.kernel.ndim]
        if not shape or len(shape) > len(self.in_shape):
            raise ValueError(
                f"kernel must have 1 to {len(self.in_shape)} axes, as points of shape "
                f"{self.in_shape} have, got shape {shape}."
            )
        if self.periodic and any(k > n for k, n in zip(shape, size, strict=True)):
            raise ValueError(
                f"A periodic kernel must fit into the picture: kernel has shape {shape}, the "
                f"picture {size}. Cut the kernel, or pass periodic=False."
            )

    def _transfer(self, shape: tuple[int, ...]) -> Array:
        """The Fourier transform of the kernel, with its origin moved to the first entry."""
        shift = [-(k // 2) for k in self.kernel.shape]
        padding = [(0, n - k) for n, k in zip(shape, self.kernel.shape, strict=True)]
        axes = tuple(range(len(shape)))
        return jnp.fft.rfftn(jnp.roll(jnp.pad(self.kernel, padding), shift, axes))

    def _forward(self, x: Array) -> Array:
        axes = tuple(range(self.kernel.ndim))
        size = self.in_shape[: len(axes)]
        # With zeros as wide as the kernel, what comes round the border is zero.
        margin = [0 if self.periodic else k - 1 for k in self.kernel.shape]
        shape = tuple(n + m for n, m in zip(size, margin, strict=True))
        transfer = self._transfer(shape)
        transfer = transfer.reshape(*transfer.shape, *[1] * (x.ndim - len(axes)))
        y = jnp.fft.irfftn(jnp.fft.rfftn(x, shape, axes) * transfer, shape, axes)
        return y[tuple(slice(n) for n in size)]

    @property
    def singular_values(self) -> Array:
        """
        The moduli of the Fourier transform of a periodic kernel, each once for every channel.

        :raises NotImplementedError: if not periodic.
        """
        if not self.periodic:
            return super().singular_values
        size = self.in_shape[: self.kernel.ndim]
        padding = [(0, n - k) for n, k in zip(size, self.kernel.shape, strict=True)]
        moduli = jnp.abs(jnp.fft.fftn(jnp.pad(self.kernel, padding))).ravel()
        num_channels = int(np.prod(self.in_shape[self.kernel.ndim :]))
        return jnp.sort(jnp.repeat(moduli, num_channels), descending=True)
