# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Isokinetic dynamics: the direction `u`, :math:`|u| = 1`, turns and the speed stays,

.. math:: dx = u\, dt, \quad du = -(I - u u^\top) \frac{\nabla U}{d - 1} dt,

which leaves :math:`e^{-U(x)}` times the uniform law of directions as it is (Ver Steeg & Galstyan
2021; Robnik, De Luca, Silverstein & Seljak 2023, "Microcanonical Hamiltonian Monte Carlo"). It
takes two dimensions at least.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random


class Splitting(NamedTuple):
    """
    A symmetric step: turns of the direction, and between them moves along it.

    - **turns** - shares of the time of the step, one more than there are moves.
    - **moves** - likewise: each asks for one gradient, at its end.
    """

    turns: tuple[float, ...]
    moves: tuple[float, ...]

    def of_oscillator(self, frequency: float) -> tuple[float, float]:
        r"""
        What a step of time 1 does to a harmonic oscillator, which is a direction of a Gaussian in
        many dimensions, where the dynamics are those of Hamilton: the relative error of the
        stationary variance of the position, and the variance of the energy error. With the matrix
        `S` of a step of position and momentum, which keeps
        :math:`-S_{21} x^2 + S_{12} p^2` as it is, and momenta that are refreshed from N(0, 1),
        the law of both is N(0, C), :math:`C = \operatorname{diag}(-S_{12} / S_{21}, 1)`, and
        the energy rises by a quadratic form `Q`, of variance
        :math:`2 \operatorname{tr} (Q C)^2`. For the leapfrog the errors are
        :math:`b = (\omega^2 / 4) / (1 - \omega^2 / 4)` and :math:`4 b^3 / (1 + b)^2`. NaN where
        the step is unstable.
        """
        energy = np.diag([frequency**2, 1.0])
        step = np.array([[1.0, 0.0], [-self.turns[0] * frequency**2, 1.0]])
        for turn, move in zip(self.turns[1:], self.moves, strict=True):
            drift = np.array([[1.0, move], [0.0, 1.0]])
            step = np.array([[1.0, 0.0], [-turn * frequency**2, 1.0]]) @ drift @ step
        if abs(np.trace(step)) >= 2:
            return np.nan, np.nan
        variance = -step[0, 1] / step[1, 0]
        rise = (step.T @ energy @ step - energy) / 2 @ np.diag([variance, 1.0])
        return variance * frequency**2 - 1, 2 * np.trace(rise @ rise)


LEAPFROG = Splitting((0.5, 0.5), (1.0,))
# Omelyan, Mryglod & Folk 2003, "Symplectic analytically integrable decomposition algorithms",
# of second order with the smallest norm of the error.
MINIMAL_NORM = Splitting(
    (0.1931833275037836, 1 - 2 * 0.1931833275037836, 0.1931833275037836), (0.5, 0.5)
)


def random_direction(key: Array, shape: tuple[int, ...], dtype) -> Array:
    """Of uniform law on the unit sphere of the last axis."""
    z = random.normal(key, shape, dtype)
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def refreshment(decay: Array | float, d: int) -> tuple[Array, Array]:
    r"""
    The weights :math:`e^{-\lambda}` and :math:`\sqrt{(1 - e^{-2 \lambda}) / d}` of
    :func:`partly_refreshed`: of the direction, and of the noise.
    """
    return jnp.exp(-decay), jnp.sqrt(-jnp.expm1(-2 * decay) / d)


def mixed(direction: Array, noise: Array, kept: Array, fresh: Array) -> Array:
    """A direction and noise by their weights, on the sphere again."""
    sum_of_both = kept * direction + fresh * noise
    return sum_of_both / jnp.linalg.norm(sum_of_both, axis=-1, keepdims=True)


def partly_refreshed(direction: Array, noise: Array, decay: Array | float) -> Array:
    r"""
    The direction of which a share is left after a time in which a free one would forget:
    :math:`e^{-\lambda} u + \sqrt{1 - e^{-2 \lambda}}\, z / \sqrt d`, on the sphere again (Robnik &
    Seljak 2023, "Fluctuation without dissipation: Microcanonical Langevin Monte Carlo").

    :param noise: `z`, standard normal, of the shape of the direction.
    :param decay: the time over that in which the direction is forgotten.
    """
    return mixed(direction, noise, *refreshment(decay, direction.shape[-1]))


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
