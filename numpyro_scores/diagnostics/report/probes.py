# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Whether a density is one to which Stein's identity applies: it must vanish at the border of its
support, and its value must be what its gradient makes of it, without jumps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

# Rays beyond the draws, and segments between them.
NUM_RAYS = 64
NUM_BISECTIONS = 20
# So near to the border, in lengths of the ray, a density that vanishes there is small.
NEAR_BORDER = 1e-3
FAR_FROM_BORDER = 0.05
SMALL_DENSITY = 0.05
NUM_NODES = 16
# In nats, and in units of the difference of two quadratures.
SMALLEST_JUMP = 0.1
NUM_ERRORS = 5.0


class Probe(NamedTuple):
    """
    - **border** - share of the rays that meet a border at which the density does not vanish.
    - **jump** - root mean square over the segments of the difference of potential energies less
      the integral of the gradient, in nats, where it is more than the error of the quadrature.
    """

    border: float
    jump: float


def probe(potential: Callable[[Array], Array], z: Array, key: Array) -> Probe:
    """
    :param potential: potential energy of one point, `(d,) -> ()`.
    :param z: draws, shape `(n, d)`, at least 2.
    :param key: which draws make pairs.
    """
    num = min(NUM_RAYS, len(z))
    key_first, key_shift = random.split(key)
    first = random.permutation(key_first, len(z))[:num]
    second = (first + random.randint(key_shift, (num,), 1, len(z))) % len(z)
    borders, jumps = jax.jit(lambda a, b: lax.map(lambda x: _along(potential, *x), (a, b)))(
        z[first], z[second]
    )
    return Probe(float(np.mean(borders)), float(np.sqrt(np.mean(np.square(jumps)))))


def _along(potential, a, b):
    """Whether the ray from `b` by `a` meets a border, and the jump on the way from `b` to `a`."""
    length = a - b
    at_a = potential(a)

    def is_inside(t):
        return jnp.isfinite(potential(a + t * length))

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        inside = is_inside(middle)
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    low, _ = lax.fori_loop(0, NUM_BISECTIONS, halve, (jnp.zeros_like(at_a), jnp.ones_like(at_a)))
    near = low - NEAR_BORDER
    density = jnp.exp(jnp.minimum(at_a - potential(a + near * length), 0))
    # Of a draw that is next to the border nothing can be told.
    is_far = low > FAR_FROM_BORDER
    border = ~is_inside(jnp.ones_like(at_a)) & is_far & (density > SMALL_DENSITY)

    def work(num_nodes):
        nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
        points = b[None] + jnp.asarray((nodes[:, None] + 1) / 2, b.dtype) * length[None]
        forces = lax.map(lambda x: jnp.vdot(jax.grad(potential)(x), length), points)
        return jnp.sum(forces * jnp.asarray(weights / 2, b.dtype))

    integral = work(NUM_NODES)
    error = jnp.abs(integral - work(NUM_NODES // 2))
    jump = at_a - potential(b) - integral
    tolerance = SMALLEST_JUMP + NUM_ERRORS * error
    return border, jnp.where(jnp.abs(jump) > tolerance, jump, 0)
