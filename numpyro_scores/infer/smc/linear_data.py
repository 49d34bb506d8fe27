# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Many Normal numbers whose means are linear in the value, :math:`f(v) = A v`, with standard
deviations `s`: their covariance given a noisy value, without a matrix for each particle.

With the decomposition :math:`W^{-1} A = U \Lambda V^\top` for reference scales `w`, one for all
particles, and the covariance of the value by a few :mod:`~numpyro_scores.infer.smc.directions`,
:math:`\tau^2 M`, residuals :math:`u = U^\top (y - A v) / s` have the covariance

.. math:: I + \rho^{-2}\, (\alpha I + \tau^2\, U^\top W^{-1} A\, M A^\top W^{-1} U)
          = D + P\, \mathrm{diag}(g)\, P^\top, \qquad P = \Lambda V^\top Q,

with a diagonal :math:`D = 1 + \rho^{-2} (\alpha + \tau^2 c\, \Lambda^2)`, the common ratio
:math:`\rho` of the scales to their reference, and a mean :math:`\alpha` of what is added to the
variances. Densities and draws then cost as much as one product with `A` (Woodbury's identity and
the determinant lemma). Where the ratios of the scales differ, it is a model of the covariance; at
the level of the prior, :math:`\tau = \alpha = 0`, it is that of the data as it is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.ops.provenance import eval_provenance

from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer.smc.directions import Directions

LARGEST_DATA = 1_024  # numbers with a basis
LARGEST_OPERATOR = 2**22  # entries of an operator that is held


class DataBasis(NamedTuple):
    """
    - **scale** - the reference `w`, shape `(dim_y,)`.
    - **vectors** - `U`, shape `(dim_y, dim_y)`.
    - **images** - :math:`\\Lambda V^\\top`, shape `(dim_y, n)`, of the entries with noise.
    - **squares** - the diagonal of :math:`\\Lambda^2`, shape `(dim_y,)`.
    """

    scale: Array
    vectors: Array
    images: Array
    squares: Array

    def rotated(self, residual: Array, scale: Array) -> Array:
        """`u` of residuals of these scales."""
        return self.vectors.T @ (residual / scale)

    def ratio(self, scale: Array) -> Array:
        r""":math:`\rho^2`."""
        return jnp.exp(2 * jnp.mean(jnp.log(scale / self.scale)))


class LinearSpread(NamedTuple):
    """
    The covariance of the data that is left by a value, without that of their noise.

    - **shared** - :math:`\\tau^2 c`, shape `()`.
    - **factor** - `P`, shape `(dim_y, num_directions)`.
    - **excess** - :math:`\\tau^2 (k - c)`, shape `(num_directions,)`.
    - **added** - to the variances, shape `(dim_y,)`.
    """

    shared: Array
    factor: Array
    excess: Array
    added: Array

    def with_noise(self, basis: DataBasis, scale: Array) -> "LowRankNormal":
        """The law of `u`."""
        ratio = basis.ratio(scale)
        added = jnp.mean(self.added / basis.scale**2)
        diagonal = 1 + (added + self.shared * basis.squares) / ratio
        return LowRankNormal(diagonal, self.factor, self.excess / ratio)


class LowRankNormal(NamedTuple):
    r"""
    The Normal distribution of mean zero and covariance :math:`D + P\, \mathrm{diag}(g)\, P^\top`.

    - **diagonal** - `D`, shape `(n,)`.
    - **factor** - `P`, shape `(n, k)`.
    - **weights** - `g`, of any sign, shape `(k,)`.
    """

    diagonal: Array
    factor: Array
    weights: Array

    def solve(self, v: Array) -> Array:
        """The inverse of the covariance times a vector."""
        columns, shares, _ = self._inverse()
        return v / self.diagonal - columns @ (shares * (v @ columns))

    def log_density(self, v: Array) -> Array:
        """Of a point."""
        log_det = self._inverse()[2]
        return -(jnp.vdot(v, self.solve(v)) + log_det + v.size * jnp.log(2 * jnp.pi)) / 2

    def _inverse(self) -> tuple[Array, Array, Array]:
        r"""
        `W` and `h` of the inverse :math:`D^{-1} - W \mathrm{diag}(h) W^\top`, and the logarithm of
        the determinant: one direction after the other (Sherman & Morrison 1950), since a batched
        call of LAPACK costs more than all of them.
        """
        columns, shares = (
            jnp.zeros((len(self.diagonal), 0), self.diagonal.dtype),
            jnp.zeros(0, self.diagonal.dtype),
        )
        log_det = jnp.sum(jnp.log(self.diagonal))
        for j in range(len(self.weights)):
            p, g = self.factor[:, j], self.weights[j]
            w = p / self.diagonal - columns @ (shares * (p @ columns))
            rise = 1 + g * jnp.vdot(p, w)
            columns = jnp.concatenate([columns, w[:, None]], axis=1)
            shares = jnp.append(shares, g / rise)
            log_det += jnp.log(rise)
        return columns, shares, log_det


def is_linear(twist: Any, x: Array) -> bool:
    """
    Whether the means of the Normal sites are linear in the entries with noise, whatever all others.

    :param twist: a :class:`~numpyro_scores.infer.smc.twist.DiffusionTwist`.
    :param x: any point.
    """
    noisy = np.flatnonzero(twist.is_noisy(x))

    def moved(x, v):
        direction = jnp.zeros_like(x).at[noisy].set(v)
        return jax.jvp(lambda x: twist.data(x)[0].loc, (x,), (direction,))[1]

    return "x" not in eval_provenance(moved, x=x, v=x[noisy])


def data_basis(twist: Any, x: Array) -> DataBasis | None:
    """
    That of the Normal sites of a model, None if there is none: of one diffusion prior, in which
    their means are linear whatever the other sites.

    :param twist: a :class:`~numpyro_scores.infer.smc.twist.DiffusionTwist`.
    :param x: any point.
    """
    sites, noisy = twist.model.sites(x), np.flatnonzero(twist.is_noisy(x))
    priors = [n for n in twist.model.unravel(x) if noise_conditional_prior(sites[n]["fn"])]
    size = jax.eval_shape(lambda x: twist.data(x)[0].loc, x).size
    is_small = 0 < size <= LARGEST_DATA and size * len(noisy) <= LARGEST_OPERATOR
    if len(priors) != 1 or not is_small or not is_linear(twist, x):
        return None
    scale = twist.data(x)[0].scale
    pull = jax.vjp(lambda x: twist.data(x)[0].loc, x)[1]
    rows = jax.vmap(lambda unit: pull(unit)[0])(jnp.eye(size, dtype=x.dtype))[:, noisy]
    rows = rows / scale[:, None]
    squares, vectors = jnp.linalg.eigh(rows @ rows.T)
    return DataBasis(scale, vectors, vectors.T @ rows, jnp.maximum(squares, 0))


def spread_of(basis: DataBasis, found: Directions, variance: Array, added: Any) -> LinearSpread:
    r"""
    :param found: of :math:`\nabla m`.
    :param variance: :math:`\tau^2`.
    :param added: to the variances of the data.
    """
    return LinearSpread(
        shared=variance * found.rest,
        factor=basis.images @ found.basis,
        excess=variance * (found.values - found.rest),
        added=jnp.broadcast_to(added, basis.scale.shape),
    )
