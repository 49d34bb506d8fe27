# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sums along parallel rays: computed tomography."""

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.ndimage import map_coordinates

from numpyro_scores._validation import as_event_shape, is_concrete
from numpyro_scores.inverse._base import LinearOperator, check_numbers


@dataclass(frozen=True, eq=False)
class Radon(LinearOperator):
    r"""
    The Radon transform: the picture is turned about its pixel `size // 2` by each angle, with
    bilinear interpolation, and summed along its columns. It is the transform of
    `skimage.transform.radon`.

    :param in_shape: `(height, width)`.
    :param angles: in degrees, shape `(num_angles,)`; may be traced, latent sites for example. It
        warns of angles that look like radians.
    :param circle: whether the picture is zero outside of the circle within its square, so that
        rays through the square are enough; else it is padded to its diagonal.
    """

    array_fields: ClassVar = ("angles",)
    in_shape: Any
    angles: Any
    circle: bool = True

    def __post_init__(self):
        object.__setattr__(self, "in_shape", as_event_shape(self.in_shape, "in_shape"))
        angles = jnp.asarray(self.angles)
        check_numbers("angles", angles)
        object.__setattr__(self, "angles", angles.astype(float))
        if len(self.in_shape) != 2 or (self.circle and len(set(self.in_shape)) != 1):
            raise ValueError(
                "Radon takes pictures of shape (height, width), square ones unless circle=False, "
                f"got in_shape {self.in_shape}. Channels are mapped over with jax.vmap."
            )
        if angles.ndim != 1:
            raise ValueError(f"angles must have shape (num_angles,), got {angles.shape}.")
        if is_concrete(angles) and np.ptp(angles) > 1 and np.max(np.abs(angles)) <= 2 * math.pi:
            warnings.warn(
                f"The angles go from {np.min(angles):.3g} to {np.max(angles):.3g}: are they in "
                "radians? Radon takes degrees, jnp.rad2deg(angles).",
                stacklevel=3,
            )

    def _forward(self, x: Array) -> Array:
        if not self.circle:
            side = math.ceil(math.sqrt(2) * max(x.shape))
            before = [side // 2 - n // 2 for n in x.shape]
            x = jnp.pad(x, [(b, side - n - b) for b, n in zip(before, x.shape, strict=True)])
        offset = jnp.arange(len(x)) - len(x) // 2
        row, column = jnp.meshgrid(offset, offset, indexing="ij")

        def sums(angle):
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            turned = jnp.stack([cos * row - sin * column, sin * row + cos * column])
            return map_coordinates(x, list(turned + len(x) // 2), order=1).sum(0)

        return jax.vmap(sums, out_axes=1)(jnp.deg2rad(self.angles))
