# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
A symmetric matrix by a few products with it: :math:`M \approx c\, (I - Q Q^\top) + Q\,
\mathrm{diag}(k)\, Q^\top`, with a few directions `Q` where it is large (Halko, Martinsson & Tropp
2011, algorithm 4.1), and `c` the mean over all others.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

NUM_DIRECTIONS = 4
MANY_DIRECTIONS = 12  # of many data, where few cost more: a mixture has one for each component

Product = Callable[[Array], Array]


class Directions(NamedTuple):
    """
    - **basis** - `Q`, shape `(n, num_directions)`.
    - **values** - `k`, shape `(num_directions,)`.
    - **rest** - `c`, shape `()`.
    """

    basis: Array
    values: Array
    rest: Array

    def at(self, high: Array, low: Array) -> "Directions":
        r"""
        The slopes :math:`V / (V + \tau^2)` of Normal values at another variance of noise.

        :param high: :math:`\tau^2` where they are these.
        :param low: where they are asked for.
        """

        def moved(slope: Array) -> Array:
            slope = jnp.minimum(slope, 1)
            total = slope * high + (1 - slope) * low
            return slope * high / jnp.maximum(total, jnp.finfo(slope.dtype).tiny)

        return self._replace(values=moved(self.values), rest=moved(self.rest))


class Seen(NamedTuple):
    r"""
    What a denoiser has said of a noisy value, with all other sites as they are.

    - **mean** - `m(x)`, shape `(d,)`.
    - **directions** - of :math:`\nabla m`.
    """

    mean: Array
    directions: Directions


def directions_of(
    product: Product, entries: np.ndarray, like: Array, num: int = NUM_DIRECTIONS
) -> Directions:
    """
    :param product: with a matrix of the whole vector.
    :param entries: which of them count.
    :param like: a vector, of which only shape and dtype matter.
    :param num: how many directions, at most one for each entry.
    """
    num = min(num, len(entries))

    def restricted(v):
        return product(jnp.zeros_like(like).at[entries].set(v))[entries]

    key_range, key_rest = random.split(random.key(0))
    signs = random.rademacher(key_range, (num, len(entries)), like.dtype)
    basis = jnp.linalg.qr(jax.vmap(restricted)(signs).T)[0]
    sign = random.rademacher(key_rest, (len(entries),), like.dtype)
    sign = sign - basis @ (basis.T @ sign)
    images = jax.vmap(restricted)(jnp.vstack([basis.T, sign]))
    core = images[:-1] @ basis
    values, vectors = jnp.linalg.eigh((core + core.T) / 2)
    tiny = jnp.finfo(like.dtype).tiny
    rest = jnp.clip(jnp.vdot(sign, images[-1]) / jnp.maximum(jnp.vdot(sign, sign), tiny), 0, 1)
    # A covariance is positive, the Jacobian of a network need not be.
    return Directions(basis @ vectors, jnp.maximum(values, 0), rest)


def by_directions(product: Product, entries: np.ndarray, like: Array) -> Product:
    """The product with a matrix that is known in a few directions, and by its mean in the rest."""
    basis, values, rest = directions_of(product, entries, like)

    def approximate(v):
        u = v[entries]
        image = rest * u + basis @ ((values - rest) * (basis.T @ u))
        return jnp.zeros_like(v).at[entries].set(image)

    return approximate
