# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
From one noise level of an energy to the next by a step of the reverse process. With
:math:`t = \sigma^2` the density :math:`p_t` is :math:`p_{t'}` with noise of variance
:math:`\Delta = t - t'` added, and given the noisier point `x` the other has the moments

.. math:: E[x' \mid x] = x + \Delta \nabla \log p_t(x), \qquad
          \mathrm{Cov}[x' \mid x] = \Delta I + \Delta^2\, \nabla^2 \log p_t(x).

The mean is known by the gradient. Of the Hessian the trace is, by the heat equation,

.. math:: \nabla \cdot \nabla \log p_t = 2\, \partial_t \log p_t - |\nabla \log p_t|^2,

for which the energy is differentiated by the noise level, too, at no further evaluation. Its
directions are those of the Gaussian of the prior's moments: with the covariance `C` of the value
without noise,

.. math:: I + t\, \nabla^2 \log p_t(x) \approx \kappa(x)\, C (C + t I)^{-1},

where the share :math:`\kappa` makes the trace right. It is 1 for a Gaussian, and small where a mode
or a manifold near the point is narrower than all of the prior. Times what the data say of the mean
:math:`m(x')`, which is linear in `x'` with the slopes that follow, this is the Gaussian from which
`x'` is drawn.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.scipy.linalg import solve_triangular
from numpyro.ops.provenance import eval_provenance

from numpyro_scores.infer.parts import others_alone
from numpyro_scores.infer.smc.gaussian_twist import GaussianTwist
from numpyro_scores.infer.smc.level_moves import LevelTarget, energy_of_priors

# Shares are powers of two, so that particles have factors in common.
SMALLEST_SHARE, LARGEST_SHARE = -6, 1
LARGEST_OWN = 64  # numbers with a factor for each particle


class LevelPoint(NamedTuple):
    r"""
    A point of a noise level, with the face of a `Point`, and what the energy of the priors says of
    the way down.

    - **score** - :math:`\nabla \log p_\sigma` of the priors alone, shape `(d,)`.
    - **share** - the logarithm of :math:`\kappa` to base 2, an integer.
    """

    x: Array
    energy: Array
    grad: Array
    integral: Array
    score: Array
    share: Array
    force: None = None


class ReverseTarget(NamedTuple):
    r"""
    :math:`p_\sigma(x)\, p(\theta)\, g_\sigma(x, \theta)`, the posterior at a noise level, with the
    mean :math:`m(x) = x + \tau^2 \nabla \log p_\sigma(x)` of the prior in the twist, which is known
    with the gradient, and the covariance of the Gaussian. The gradient of the twist takes
    :math:`\nabla m` for that of the share; a Metropolis test makes up for it.

    - **of_data** - the twist of the Gaussian.
    - **sigma** - the noise level.
    """

    of_data: GaussianTwist
    sigma: Array

    def at(self, x: Array, integral: Array) -> LevelPoint:
        """The point at `x`."""
        model = self.of_data.model
        of_priors = jax.value_and_grad(energy_of_priors(model), argnums=(0, 1))
        energy, (grad, slope) = of_priors(x, self.sigma)
        share = share_of(self.of_data, x, self.sigma, grad, slope)
        at = LevelTarget(self.twist(x, -grad, share), self.sigma).twist(x)
        # The gradient of the twist has that of the other sites' density, and its value has not.
        others = model.potential(others_alone(model.model))(x)
        return LevelPoint(
            x=x,
            energy=energy + others + at.energy,
            grad=grad + at.grad,
            integral=integral,
            score=-grad,
            share=share,
        )

    def twist(self, x: Array, score: Array, share: Array) -> GaussianTwist:
        """The twist by the mean of the prior itself at a point."""
        twist = self.of_data
        mean = x[twist.noisy] + twist.added_noise * score[twist.noisy]
        own = twist.levels(x)[twist.noisy] ** 2
        total = own + twist.added_noise
        return twist.about(x, mean, slopes_of(twist, own, total, share))

    rise, is_known = LevelTarget.rise, LevelTarget.is_known


def slopes_of(twist: GaussianTwist, own: Array, total: Array, share: Array) -> Array:
    r""":math:`\nabla m` along the axes: that of a share at a variance of noise."""
    kept = twist.axes.values / (twist.axes.values + total)
    return (own + (total - own) * jnp.exp2(share) * kept) / total


def share_of(twist: GaussianTwist, x: Array, sigma: Array, grad: Array, slope: Array) -> Array:
    r"""
    The logarithm of :math:`\kappa` to base 2, rounded, from -6 to 1: 0 where nothing tells.

    :param grad: of the energy of the priors by the point.
    :param slope: by the noise level.
    """

    def variance(sigma):
        return twist.levels(x, sigma)[twist.noisy] ** 2

    # Priors that have reached their own level stay there; their rate is zero.
    t, rate = jax.jvp(variance, (sigma,), (jnp.ones_like(sigma),))
    kept = twist.axes.values / (twist.axes.values + t)
    trace = jnp.sum(rate * (1 / t - grad[twist.noisy] ** 2)) - 2 * slope
    gaussian = jnp.sum(rate * kept / t)
    share = trace / jnp.where(gaussian > 0, gaussian, 1)
    is_told = (gaussian > 0) & jnp.isfinite(share)
    share = jnp.clip(share, 2.0**SMALLEST_SHARE, 2.0**LARGEST_SHARE)
    return jnp.where(is_told, jnp.round(jnp.log2(share)), 0).astype(jnp.int32)


class Factor(NamedTuple):
    r"""
    Of the data given the mean at the next level, :math:`S = I + R\, \mathrm{diag}(p) R^\top`.

    - **width** - `p`, the variances of the step along the axes, shape `(d,)`.
    - **slopes** - of the next mean, shape `(d,)`.
    - **rows** - `R`, shape `(n, d)`.
    - **root** - the Cholesky factor of `S`, shape `(n, n)`.
    """

    width: Array
    slopes: Array
    rows: Array
    root: Array

    def given(self, u: Array, v: Array) -> Array:
        """A draw `u` of the step, after the data have had their say, with noise `v` of theirs."""
        solved = solve_triangular(self.root, self.rows @ u + v, lower=True)
        solved = solve_triangular(self.root, solved, lower=True, trans="T")
        return u - self.width * (solved @ self.rows)


class ReverseStep:
    """
    :param here: the twist of a noise level.
    :param there: that of the next.
    :param sigma: the level.
    :param new_sigma: the next.
    :param about: a point about which the means of the data are linear, if particles share this.
    """

    def __init__(
        self,
        here: GaussianTwist,
        there: GaussianTwist,
        sigma: Array,
        new_sigma: Array,
        about: Array,
    ):
        self._here, self._there, self._about = ReverseTarget(here, sigma), there, about
        self._new_sigma, self._noisy = new_sigma, there.noisy
        self._own = there.levels(about)[self._noisy] ** 2
        self._old = self._own + here.added_noise
        #: :math:`\\Delta` of each entry of a prior, 0 of those which have reached their own level.
        self._fall = here.added_noise - there.added_noise
        self._factors = None
        if not self._varies(about):
            shares = jnp.arange(SMALLEST_SHARE, LARGEST_SHARE + 1)
            self._factors = jax.vmap(lambda share: self._factor(about, share))(shares)

    def _varies(self, x: Array) -> bool:
        """Whether what the data say is to be found of each particle."""
        there = self._there
        size = min(jax.eval_shape(lambda x: there.data(x)[0].loc, x).size, len(self._noisy))
        found = eval_provenance(lambda x: (there.rows(x), there.data(x)[0].scale), x=x)
        return 0 < size <= LARGEST_OWN and any("x" in names for names in found)

    def _factor(self, mean: Array, share: Array) -> Factor:
        there, fall, eps = self._there, self._fall, jnp.finfo(mean.dtype).eps
        is_moved = fall > 0
        slopes = slopes_of(there, self._own, self._old, share)
        # 1 where nothing moves, to divide by.
        added = jnp.where(is_moved, self._old - self._own, 1)
        width = fall * (1 - fall / added) + fall**2 * slopes / added
        slopes = jnp.where(is_moved, fall * slopes / jnp.where(is_moved, width, 1), slopes)
        rows, scale = there.rows(mean), there.data(mean)[0].scale
        if not len(rows):
            rows, scale = jnp.zeros((1, len(fall)), mean.dtype), jnp.ones(1, mean.dtype)
        total = rows @ there.covariance_given(rows).T + jnp.diag(scale**2)
        total += 4 * eps * jnp.trace(total) * jnp.eye(len(total))
        root = jnp.linalg.cholesky(total)
        rows = solve_triangular(root, rows @ there.axes.vectors * slopes, lower=True)
        if len(rows) > len(fall):
            rows = jnp.linalg.qr(rows, mode="r")
        root = jnp.linalg.cholesky(jnp.eye(len(rows)) + (rows * width) @ rows.T)
        return Factor(width, slopes, rows, root)

    def __call__(self, key: Array, point: LevelPoint) -> tuple[Array, Array]:
        r"""
        A particle at the next level, and :math:`\log L(x \mid x') / K(x' \mid x)`, the density of
        the noise that leads back over that of the step.
        """
        x, noisy, vectors = point.x, self._noisy, self._there.axes.vectors
        key_prior, key_data = random.split(key)
        known = self._here.twist(x, point.score, point.share).mean(x)
        if self._factors is None:
            factor, others = self._factor(known, point.share), x
        else:
            factor = jax.tree.map(lambda f: f[point.share - SMALLEST_SHARE], self._factors)
            others = self._about
        mean = x[noisy] + self._fall * point.score[noisy]
        where = others.at[noisy].set(mean)
        local = self._there.about(where, known[noisy], factor.slopes)
        grad = LevelTarget(local, self._new_sigma).twist(where).grad[noisy]
        noise = jnp.sqrt(factor.width) * random.normal(key_prior, mean.shape, x.dtype)
        data_noise = random.normal(key_data, factor.root.shape[:1], x.dtype)
        deviation = factor.given(noise, data_noise)
        pull = factor.given(-factor.width * (grad @ vectors), jnp.zeros_like(data_noise))
        moved = mean + vectors @ (deviation + pull)
        log_step = _log_normal(deviation, factor.width)
        log_step += jnp.sum(jnp.log(jnp.diagonal(factor.root)))
        log_step -= jnp.sum((factor.rows @ deviation) ** 2) / 2
        log_back = _log_normal(moved - x[noisy], self._fall)
        return x.at[noisy].set(moved), log_back - log_step


def _log_normal(v: Array, variance: Array) -> Array:
    """Of the entries that move."""
    is_moved = variance > 0
    variance = jnp.where(is_moved, variance, 1)
    return -jnp.sum(jnp.where(is_moved, v**2 / variance + jnp.log(variance), 0)) / 2
