# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Moves of noise scales :math:`\theta` together with all that the data measure, `x`.

Given :math:`\theta`, the posterior of `x` is as wide as the noise, so that neither can move far
alone: a funnel. One block (Knorr-Held & Rue 2002, "On block updating in Markov random field models
for disease mapping") walks :math:`\theta' = \theta + 2.4 \sqrt{h / k}\, R\, \xi_\theta`, with the
covariance :math:`R R^\top` of the `k` scales among the particles, and proposes `x'` by the Gaussian
approximation of its posterior given :math:`\theta'`. With the precision of the prior and that of
the data, :math:`G = A + \beta J^\top \Lambda J = L L^\top`, and the gradient `g` of the potential
energy, that of :math:`\theta` has the mean :math:`x - G^{-1} g`, from which `x` is
:math:`w = L^{-1} g` standard deviations away. Of this a part is kept, as in a partly non-centred
parametrisation (Papaspiliopoulos, Roberts & Skold 2007),

.. math:: x' = x - G'^{-1} g' + L'^{-\top} \left((1 - h)\, w + \sqrt{2 h - h^2}\, \xi\right),

with :math:`G' = L' L'^\top` and `g'` at :math:`(x, \theta')`. At a fixed scale this is a step of
MALA to first order in `h`; if all is Gaussian given :math:`\theta`, `x` leaves no trace in the
acceptance, which is that of a walk on the posterior of :math:`\theta` alone, however small it is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.scipy.linalg import solve_triangular

from numpyro_scores.infer.adaptation import accept_or_stay
from numpyro_scores.infer.langevin.targets import Point, Target, Transition


class Block(NamedTuple):
    """
    - **scales** - the entries of a position that are noise scales, integers.
    - **others** - all other entries.
    - **precision** - `A`, shape `(len(others), len(others))`, or `(len(others),)` of its diagonal.
    """

    scales: np.ndarray
    others: np.ndarray
    precision: Array


def spread_root(x: Array) -> Array:
    """A root `R` of the covariance of particles, shape `(n, k)`; few make it more diagonal."""
    n, k = x.shape
    covariance = jnp.atleast_2d(jnp.cov(x, rowvar=False, bias=True))
    variance = jnp.diagonal(covariance)
    variance = jnp.where(variance > 0, variance, 1)
    return jnp.linalg.cholesky((n * covariance + k * jnp.diag(variance)) / (n + k))


class _Local(NamedTuple):
    """
    - **root** - `L`, or the diagonal of a diagonal one.
    - **grad** - `g`.
    """

    root: Array
    grad: Array

    def white(self) -> Array:
        """`w`."""
        return self.grad / self.root if self.root.ndim == 1 else self._solved(self.grad)

    def off(self, white: Array) -> Array:
        r""":math:`L^{-\top}` times this."""
        if self.root.ndim == 1:
            return white / self.root
        return solve_triangular(self.root, white, trans=1, lower=True)

    def to_white(self, x: Array) -> Array:
        r""":math:`L^\top` times this."""
        return self.root * x if self.root.ndim == 1 else self.root.T @ x

    def log_det(self) -> Array:
        """Of the root."""
        diagonal = self.root if self.root.ndim == 1 else jnp.diagonal(self.root)
        return jnp.sum(jnp.log(diagonal))

    def _solved(self, x):
        return solve_triangular(self.root, x, lower=True)


def block_step(
    key: Array,
    point: Point,
    target: Target,
    likelihood_grad: Callable[[Array], Array],
    informed: Callable[[Array], Array],
    power: Array,
    block: Block,
    walk: Array,
    step_size: Array,
) -> Transition:
    r"""
    A Metropolis step of scales and all else.

    :param likelihood_grad: gradient of the log likelihood.
    :param informed: :math:`J^\top \Lambda J` at a position, see `noise_scales.information`.
    :param walk: `R`.
    :param step_size: `h`, at most 1.
    """
    key_scales, key_others, key_accept = random.split(key, 3)
    x, (scales, others) = point.x, block[:2]

    def local(x, grad):
        precision = block.precision + power * informed(x)
        root = jnp.sqrt(precision) if precision.ndim == 1 else jnp.linalg.cholesky(precision)
        return _Local(root, grad[others])

    def conditional(point, scale_values):
        """At the point, and at other scales: the density of the prior knows nothing of these."""
        here = local(point.x, point.grad)
        x = point.x.at[scales].set(scale_values)
        change = power * (likelihood_grad(point.x) - likelihood_grad(x))
        there = local(x, point.grad + change)
        centre = x[others] + there.off((1 - step_size) * here.white() - there.white())
        return there, centre

    noise = random.normal(key_others, others.shape, x.dtype)
    jump = (
        2.4
        * jnp.sqrt(step_size / len(scales))
        * walk
        @ random.normal(key_scales, scales.shape, x.dtype)
    )
    spread = jnp.sqrt(step_size * (2 - step_size))
    new_scales = x[scales] + jump
    there, centre = conditional(point, new_scales)
    x_new = x.at[scales].set(new_scales).at[others].set(centre + there.off(spread * noise))
    proposal = target.at(x_new, point.integral)
    rise, error = target.rise(point, proposal)
    is_known = target.is_known(error)
    proposal = proposal._replace(integral=point.integral + rise)
    back, centre = conditional(proposal, x[scales])
    noise_back = back.to_white(x[others] - centre) / spread
    log_ratio = (
        point.energy
        - proposal.energy
        - rise
        + back.log_det()
        - there.log_det()
        + (jnp.vdot(noise, noise) - jnp.vdot(noise_back, noise_back)) / 2
    )
    log_ratio = jnp.where(jnp.all(jnp.isfinite(proposal.grad)), log_ratio, -jnp.inf)
    uniform = random.uniform(key_accept, dtype=x.dtype)
    point, accept_prob, diverging = accept_or_stay(uniform, log_ratio, proposal, point, is_known)
    unresolved = (~is_known & ~diverging).astype(accept_prob.dtype)
    return Transition(point, accept_prob, diverging, unresolved)
