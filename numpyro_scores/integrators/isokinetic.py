# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Isokinetic dynamics: the direction `u`, :math:`|u| = 1`, turns and the speed stays,

.. math:: dx = u\, dt, \quad du = -(I - u u^\top) \frac{\nabla U}{d - 1} dt,

which leaves :math:`e^{-U(x)}` times the uniform law of directions as it is (Ver Steeg & Galstyan
2021; Robnik, De Luca, Silverstein & Seljak 2023, "Microcanonical Hamiltonian Monte Carlo"). It
takes two dimensions at least.
"""

import jax.numpy as jnp
from jax import Array, random


def random_direction(key: Array, shape: tuple[int, ...], dtype) -> Array:
    """Of uniform law on the unit sphere of the last axis."""
    z = random.normal(key, shape, dtype)
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def turned(direction: Array, grad: Array, time: Array | float) -> tuple[Array, Array]:
    r"""
    The direction after a time in a constant gradient, exactly, and by how much the kinetic energy
    rises. With :math:`\delta = t |g| / (d - 1)`, :math:`e = -g / |g|` and :math:`a = e \cdot u`,

    .. math::
        u' = \frac{u + e\, (\sinh \delta + a (\cosh \delta - 1))}{\cosh \delta + a \sinh \delta},
        \quad \Delta K = (d - 1) \ln (\cosh \delta + a \sinh \delta)

    (Robnik et al. 2023, equation 16). The map turns volume on the sphere by
    :math:`e^{-\Delta K}`, which is why this is an energy.
    """
    d = direction.shape[-1]
    size = jnp.linalg.norm(grad)
    e = jnp.where(size > 0, -grad / jnp.where(size > 0, size, 1), 0.0)
    delta = time * size / (d - 1)
    a = jnp.clip(jnp.vdot(e, direction), -1, 1)
    # Divided by cosh(delta), which overflows; s = tanh(delta / 2).
    s, tanh = jnp.tanh(delta / 2), jnp.tanh(delta)
    turn = direction * (1 - tanh * s) + e * (tanh + a * tanh * s)
    # Where 1 + a is near 0 rounding would take it off the sphere; at 0 the direction stays.
    length = jnp.linalg.norm(turn)
    turn = jnp.where(length > 0, turn / jnp.where(length > 0, length, 1), direction)
    # ln cosh(delta) is 2 sinh(delta / 2)^2 where that is small.
    small = jnp.minimum(delta, 1.0)
    near = jnp.log1p(2 * jnp.sinh(small / 2) ** 2 + a * jnp.sinh(small))
    decay = jnp.exp(-2 * delta)
    far = delta + jnp.log(jnp.maximum((1 + a) + (1 - a) * decay, jnp.finfo(a.dtype).tiny) / 2)
    return turn, (d - 1) * jnp.where(delta < 1, near, far)
