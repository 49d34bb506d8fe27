# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Twists of a diffusion prior: what the data say of a point with noise.

The value `v` that the model sees is one of noise level :math:`\sigma_0`, the prior's own, and the
perfect twist is :math:`E[p(y | v) \mid x_\sigma = x]`. The denoiser `D` knows two moments of `v`
(Tweedie's formula, for noise of variance :math:`\tau^2 = \sigma^2 - \sigma_0^2` added to it):

.. math:: m(x) = E[v \mid x] = x + (1 - \sigma_0^2 / \sigma^2)\, (D(x, \sigma) - x),
          \qquad \mathrm{Cov}[v \mid x] = \tau^2\, \nabla m(x).

Where an observed site is Normal with mean :math:`f(v)` and standard deviation `s`, these give

.. math:: N\left(y;\, f(m(x)),\, s^2 + \tau^2 J\, \nabla m(x)\, J^\top\right),
          \qquad J = \nabla f(m(x)),

(Boys et al. 2024, "Tweedie moment projected diffusions", equation 8, where :math:`\sigma_0 = 0`),
perfect if all is linear and Gaussian. Of all other data the expectation is taken one number after
the other, each along its own slope, see :mod:`~numpyro_scores.infer.smc.other_data`; of one value
alone, and of more than 16 numbers, of all at once along one line. At :math:`\sigma_0` the twist is
the likelihood: had it been of :math:`x_0`, a noise `s` no larger than :math:`\sigma_0` would leave
few particles in the end.

Up to 16 numbers take a product with :math:`\nabla m` for each. More take a few in all, for
:math:`\nabla m` by four :mod:`~numpyro_scores.infer.smc.directions`. Of more than 64 that are
linear in the value the covariance is that of :mod:`~numpyro_scores.infer.smc.linear_data`; of
others its diagonal alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro.ops.provenance import eval_provenance

from numpyro_scores import handlers
from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.directions import (
    MANY_DIRECTIONS,
    NUM_DIRECTIONS,
    Directions,
    Product,
    by_directions,
    directions_of,
)
from numpyro_scores.infer.smc.exponential_steps import exponential_step, fallen
from numpyro_scores.infer.smc.linear_data import DataBasis, LinearSpread, spread_of
from numpyro_scores.infer.smc.normal_data import (
    GaussianData,
    log_density,
    parts_of,
)
from numpyro_scores.infer.smc.other_data import Filtered, Lines, filtered, lines_of, separate

LARGEST_EXACT = 16  # numbers, of one product with the Jacobian for each
LARGEST_DENSE = 64  # numbers with a full covariance
NUM_PROBES = 8  # for the lengths of the rows of J, of more numbers


class DiffusionTwist:
    """
    :param model: the model, with its arguments.
    :param levels: noise levels.
    :param added: what is added to the variances of the Normal sites at each, shape `(len(levels),
        dim_y)`, see `twist_widths`; by default nothing.
    :param basis: of more than 64 Normal numbers, if they have one, see `linear_data`.
    """

    def __init__(
        self,
        model: FlatModel,
        levels: Any = None,
        added: Array | None = None,
        basis: DataBasis | None = None,
    ):
        self.model, self._levels, self.added_by_level = model, levels, added
        self.basis = basis

    def levels(self, x: Array, sigma: Any = None) -> Array:
        """
        The noise level of each entry at `sigma`: of a diffusion prior within those of its process
        and not below its own, which is the default; 0 for other sites.
        """
        z, sites = self.model.unravel(x), self.model.sites(x)
        for name in z:
            prior = noise_conditional_prior(sites[name]["fn"])
            z[name] = jnp.full_like(z[name], 0 if prior is None else level_of(prior, sigma))
        return ravel_pytree(z)[0]

    def denoised(self, x: Array, sigma: Any, below: Any = None) -> Array:
        r"""
        :math:`E[x_0 \mid x_\sigma = x]` in place of the sites of diffusion priors.

        :param below: another noise level, for the one halfway between the logarithms.
        """
        z, sites = self.model.unravel(x), self.model.sites(x)
        for name in z:
            if (prior := noise_conditional_prior(sites[name]["fn"])) is not None:
                level = level_of(prior, sigma)
                if below is not None:
                    level = jnp.sqrt(level * level_of(prior, below))
                # What is masked has no density to be denoised by, and stays.
                noisy = handlers.at_noise_level(sites[name]["fn"], level)
                z[name] = handlers.denoised(noisy, z[name])
        return ravel_pytree(z)[0]

    def mean(self, x: Array, sigma: Any) -> Array:
        """`m(x)`, and other sites as they are."""
        kept = (self.levels(x) / _positive(self.levels(x, sigma))) ** 2
        return kept * x + (1 - kept) * self.denoised(x, sigma)

    def is_noisy(self, x: Array) -> np.ndarray:
        """Whether each entry is one of a noise-conditional prior."""
        sites = self.model.sites(x)
        parts = [
            np.full(np.size(value), noise_conditional_prior(sites[name]["fn"]) is not None)
            for name, value in sorted(self.model.unravel(x).items())
        ]
        return np.concatenate(parts)

    def varies(self, x: Array) -> bool:
        """Whether the covariance of the Normal sites depends on sites without noise."""
        if self.basis is not None:  # their means are linear, whatever these are
            return False
        z, sites = self.model.unravel(x), self.model.sites(x)
        means = eval_provenance(lambda **z: parts_of(self.model.trace_of(z), x.dtype)[0].loc, **z)
        return any(noise_conditional_prior(sites[name]["fn"]) is None for name in means)

    def has_covariance(self, x: Array) -> bool:
        """Whether the Normal sites have a covariance, not variances alone."""
        return self.basis is not None or 0 < self._size(x) <= LARGEST_DENSE

    def num_lines(self, x: Array) -> int:
        """Of the data that are not Normal, along how many lines they are averaged."""
        rest = jax.eval_shape(self._rest, x)
        return 0 if rest is None else rest.size

    def num_products(self, x: Array) -> int:
        """How many products with the Jacobian of the denoiser a twist takes."""
        if self.basis is not None:
            return 2 * min(MANY_DIRECTIONS, self.basis.images.shape[1]) + 1
        size = self._size(x)
        if size > LARGEST_DENSE:
            return 1
        return size if self._is_exact(size, x) else 2 * NUM_DIRECTIONS + 1

    def _size(self, x: Array) -> int:
        return jax.eval_shape(lambda x: self.data(x)[0].loc, x).size

    def _is_exact(self, size: int, x: Array) -> bool:
        # A product with the denoiser's Jacobian at each move of other sites would be too many.
        return size <= LARGEST_EXACT and not self.varies(x)

    def flow(self, x: Array, sigma: Array, new_sigma: Array) -> Array:
        """
        The probability flow from one noise level to another: it carries draws of the one density to
        draws of the other. One step of an exponential Runge-Kutta method of third order in the
        logarithm of the noise level (Cox & Matthews 2002, "Exponential time differencing for stiff
        systems", ETD3RK), which is off by 0.02% after the 24 levels where Heun's is by 6%.
        """
        high, low = self.levels(x, sigma), self.levels(x, new_sigma)
        fall = jnp.log(_positive(high) / _positive(low))
        first = self.denoised(x, sigma)
        second = self.denoised(fallen(x, fall / 2, first), sigma, new_sigma)
        third = self.denoised(fallen(x, fall, 2 * second - first), new_sigma)
        return exponential_step(x, fall, (first, second, third))

    def products(self, mean: Array, product: Product) -> Product:
        r"""Products with :math:`\nabla m`, the Jacobian of `m(x)`, as they are or by a few."""
        size = self.data(mean)[0].loc.size
        if size > LARGEST_DENSE or self._is_exact(size, mean):
            return product
        return by_directions(product, np.flatnonzero(self.is_noisy(mean)), mean)

    def informed(self, mean: Array, product: Product) -> tuple[Array, Array]:
        r""":math:`J` and :math:`J\, \nabla m`, each of shape `(dim_y, d)`."""
        loc, pull = jax.vjp(lambda mean: self.data(mean)[0].loc, mean)
        (rows,) = jax.vmap(pull)(jnp.eye(loc.size, dtype=loc.dtype))
        return rows, jax.vmap(product)(rows)

    def covariance(
        self, rows: Array, images: Array, sigma: Array, added: Array | None = None
    ) -> Array:
        r"""
        :math:`\tau^2 J\, \nabla m\, J^\top` of these, at a noise level.

        :param added: to its diagonal, by default what is added at that level.
        """
        found = rows @ (self.variance(rows[0], sigma) * images).T
        found = (found + found.T) / 2
        added = jnp.broadcast_to(self.added(sigma) if added is None else added, len(rows))
        if len(rows) > LARGEST_EXACT:
            return found + jnp.diag(added)
        # A covariance is positive, the Jacobian of a network need not be.
        values, vectors = jnp.linalg.eigh(lax.stop_gradient(found))
        return (vectors * jnp.maximum(values, 0)) @ vectors.T + jnp.diag(added)

    def added(self, sigma: Array) -> Array | float:
        """What is added to the variances at a noise level, shape `(dim_y,)`."""
        if self._levels is None or self.added_by_level is None:
            return 0.0
        return self.added_by_level[
            jnp.argmin(jnp.abs(jnp.asarray(self._levels, sigma.dtype) - sigma))
        ]

    def variance(self, x: Array, sigma: Array) -> Array:
        r""":math:`\tau^2` of each entry."""
        return self.levels(x, sigma) ** 2 - self.levels(x) ** 2

    def directions(self, mean: Array, product: Product) -> Directions | None:
        r"""Of :math:`\nabla m`, for the covariance of numbers with a basis; of others none."""
        if self.basis is None:
            return None
        noisy = np.flatnonzero(self.is_noisy(mean))
        return directions_of(product, noisy, mean, MANY_DIRECTIONS)

    def spread(
        self, mean: Array, product: Product, sigma: Array, found: Directions | None
    ) -> Array | LinearSpread:
        r"""
        The covariance :math:`\tau^2 J\, \nabla m\, J^\top` of the Normal sites, shape `(dim_y,
        dim_y)`, or what it is made of in their basis; its diagonal alone for many without one,
        where :math:`\nabla m = c I`, with fixed random signs.

        :param found: the directions.
        """
        if found is not None and self.basis is not None:
            variance = self.variance(mean, sigma)[np.flatnonzero(self.is_noisy(mean))[0]]
            return lax.stop_gradient(spread_of(self.basis, found, variance, self.added(sigma)))
        if self.has_covariance(mean):
            return lax.stop_gradient(self.covariance(*self.informed(mean, product), sigma))
        mask = self.is_noisy(mean)
        signs = random.rademacher(random.key(0), (NUM_PROBES, mean.size), mean.dtype) * mask
        push = jax.linearize(lambda mean: self.data(mean)[0].loc, mean)[1]
        share = jnp.clip(jnp.vdot(signs[0], product(signs[0])) / np.sum(mask), 0, 1)
        pushed = jax.vmap(push)(jnp.sqrt(self.variance(mean, sigma)) * signs)
        return lax.stop_gradient(share * jnp.mean(pushed**2, axis=0) + self.added(sigma))

    def lines(self, mean: Array, product: Product, sigma: Array) -> Lines | None:
        """Along which data that are not Normal are averaged; None without any."""
        if not self.num_lines(mean):
            return None
        slopes = jax.jacrev(self._rest)(mean)
        slopes = jnp.where(self.is_noisy(mean) & jnp.isfinite(slopes), slopes, 0)
        pulled = self.variance(mean, sigma) * jax.vmap(product)(slopes)
        return lax.stop_gradient(lines_of(slopes, pulled))

    def rest(self, mean: Array, lines: Lines) -> Filtered:
        """The data that are not Normal, averaged along these."""
        return filtered(self._rest, mean, lines)

    def _rest(self, v: Array) -> Any:
        return self.data(v)[1]

    def log_density(
        self, mean: Array, spread: Array | LinearSpread, lines: Lines | None = None
    ) -> Array:
        """Of the data at a mean with this covariance, -inf where it is not a number."""
        value = self.log_density_of_normal(self.data(mean)[0], spread)
        if lines is not None:
            value += self.rest(mean, lines).log_mean
        return jnp.where(value < jnp.inf, value, -jnp.inf)

    def log_density_of_normal(
        self, data: GaussianData, spread: Array | LinearSpread, more: Array | float = 0.0
    ) -> Array:
        """
        Of the Normal sites.

        :param more: what is added to the variances, shape `(dim_y,)`.
        """
        if isinstance(spread, LinearSpread):
            assert self.basis is not None
            law = spread._replace(added=spread.added + more).with_noise(self.basis, data.scale)
            rotated = self.basis.rotated(data.value - data.loc, data.scale)
            return law.log_density(rotated) - jnp.sum(jnp.log(data.scale))
        if spread.ndim == 2:
            more = jnp.diag(jnp.broadcast_to(more, data.scale.shape))
        return log_density(data, spread + more)

    def data(self, mean: Array) -> tuple[GaussianData, Array | None]:
        """The Normal sites at a point, and the log densities of all other numbers, if any."""
        normal, rest = parts_of(self.model.sites(mean), mean.dtype)
        return normal, None if rest is None else separate(rest, self.is_noisy(mean))


def level_of(prior: Any, sigma: Any) -> Any:
    """The level of a prior at `sigma`, not below its own, which is the default."""
    return prior.sigma if sigma is None else jnp.maximum(prior.at(sigma).sigma, prior.sigma)


def _positive(levels: Array) -> Array:
    """To divide by, where there is no noise."""
    return jnp.where(levels > 0, levels, 1)
