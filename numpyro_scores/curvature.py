# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The largest curvature of a potential energy, by power iteration with Hessian-vector products."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

# Power iterations from random directions, and those that go on from where the last ones ended.
NUM_FIRST_ITERATIONS = 20
NUM_ITERATIONS = 2


def hessian_vector_product(gradient: Callable[[Array], Array], x: Array, v: Array) -> Array:
    r""":math:`\nabla^2 U(x)\, v`, forward over the gradient: about two gradients."""
    return jax.jvp(gradient, (x,), (v,))[1]


def largest_curvature(
    gradient: Callable[[Array], Array], x: Array, directions: Array, num_iterations: int | Array
) -> tuple[Array, Array]:
    r"""
    The largest absolute eigenvalue of each diagonal block of :math:`\nabla^2 U(x)`, by power
    iteration :math:`v \leftarrow \nabla^2 U(x) v / |\nabla^2 U(x) v|` within the block.

    The estimate is the norm of the last product, a lower bound that grows with the iterations;
    starting from the `directions` of a nearby point, one iteration is enough.

    :param gradient: :math:`\nabla U`, of a flat point.
    :param x: a point, shape `(d,)`.
    :param directions: one start for each block, shape `(num_blocks, d)`, zero outside its block and
        not zero within; see :func:`block_directions`.
    :param num_iterations: number of Hessian-vector products for each block.
    :return: the curvatures, shape `(num_blocks,)`, and the last directions, `(num_blocks, d)`.
    """
    blocks = directions != 0
    product = jax.linearize(gradient, x)[1]

    def iteration(_, carry):
        directions, _ = carry
        unit = _unit(directions)
        images = jnp.where(blocks, jax.vmap(product)(unit), 0)
        norms = jnp.linalg.norm(images, axis=1)
        # A flat or non-finite direction tells nothing: keep it for the next point.
        usable = (norms > 0) & jnp.isfinite(norms)
        return jnp.where(usable[:, None] & blocks, _nonzero(images), unit), norms

    carry = (directions, jnp.zeros(len(directions), x.dtype))
    directions, curvatures = lax.fori_loop(0, num_iterations, iteration, carry)
    return curvatures, directions


def next_directions(directions: Array, fresh: Array) -> Array:
    """
    The directions of a nearby point with something new in them, or one whose curvature has just
    outgrown the others would be found too late.
    """
    # Of less weight, since in a block with one entry old and new would cancel half of the time.
    return _unit(directions) + _unit(fresh) / 2


def curvature_at(gradient: Callable[[Array], Array], x: Array, key: Array) -> Array:
    r"""
    The largest absolute eigenvalue of :math:`\nabla^2 U(x)`, by 20 power iterations from a random
    start: within a few percent, from below, unless the next eigenvalues are closer than that.

    :return: the curvature, shape `()`.
    """
    start = block_directions(random.normal(key, x.shape, x.dtype), np.zeros(x.shape, int))
    curvatures, _ = largest_curvature(gradient, x, start, NUM_FIRST_ITERATIONS)
    return curvatures[0]


def block_directions(noise: Array, blocks: np.ndarray) -> Array:
    """
    Random starts of :func:`largest_curvature`.

    :param noise: standard normals, shape `(d,)`.
    :param blocks: to which block each entry belongs, integers of shape `(d,)`.
    """
    num_blocks = int(blocks.max()) + 1
    return jnp.where(jnp.arange(num_blocks)[:, None] == blocks[None], _nonzero(noise)[None], 0)


def _unit(directions: Array) -> Array:
    return directions / jnp.linalg.norm(directions, axis=1, keepdims=True)


def _nonzero(x: Array) -> Array:
    # The zeros of a direction mark what is outside its block.
    return jnp.where(x == 0, jnp.finfo(x.dtype).tiny, x)
