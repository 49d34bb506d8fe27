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
perfect if all is linear and Gaussian. Other sites see the mean itself (Chung et al. 2023). At
:math:`\sigma_0` the twist is the likelihood: had it been of :math:`x_0`, a noise `s` no larger than
:math:`\sigma_0` would leave few particles in the end.

Up to 16 numbers take a product with :math:`\nabla m` for each. More take a few in all, for
:math:`\nabla m \approx c\, (I - Q Q^\top) + Q\, (Q^\top \nabla m\, Q)\, Q^\top`, with four
directions `Q` where :math:`\nabla m` is large (Halko, Martinsson & Tropp 2011, algorithm 4.1), and
`c` the mean over all others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import multivariate_normal, norm
from numpyro.distributions.distribution import ExpandedDistribution, Independent
from numpyro.ops.provenance import eval_provenance

from numpyro_scores.handlers import is_likelihood, noise_conditional_prior
from numpyro_scores.infer.model import FlatModel

LARGEST_EXACT = 16  # numbers, of one product with the Jacobian for each
LARGEST_DENSE = 64  # numbers with a full covariance
NUM_DIRECTIONS = 4  # in which the covariance of the value is known
NUM_PROBES = 8  # for the lengths of the rows of J, of more numbers

NODES, _WEIGHTS = (np.polynomial.legendre.leggauss(5) + np.array([[1.0], [0.0]])) / 2  # of [0, 1]
# Weights there of parabolas that are one at 0, 1/2 or 1 and zero at the other two.
_PARABOLAS = [2 * (NODES - 0.5) * (NODES - 1), 4 * NODES * (1 - NODES), 2 * NODES * (NODES - 0.5)]
PARABOLAS = (_WEIGHTS * np.array(_PARABOLAS)).T

Product = Callable[[Array], Array]


class GaussianData(NamedTuple):
    """Means, standard deviations and values of the Normal sites, each of shape `(dim_y,)`."""

    loc: Array
    scale: Array
    value: Array


class DiffusionTwist:
    """
    :param model: the model, with its arguments.
    :param levels: noise levels.
    :param added: what is added to the variances of the Normal sites at each, shape `(len(levels),
        dim_y)`, see `twist_widths`; by default nothing.
    """

    def __init__(self, model: FlatModel, levels: Any = None, added: Array | None = None):
        self.model, self._levels, self.added_by_level = model, levels, added

    def levels(self, x: Array, sigma: Any = None) -> Array:
        """
        The noise level of each entry at `sigma`: of a diffusion prior within those of its process
        and not below its own, which is the default; 0 for other sites.
        """
        z, sites = self.model.unravel(x), self.model.sites(x)
        for name in z:
            prior = noise_conditional_prior(sites[name]["fn"])
            z[name] = jnp.full_like(z[name], 0 if prior is None else _level(prior, sigma))
        return ravel_pytree(z)[0]

    def denoised(self, x: Array, sigma: Any, below: Any = None) -> Array:
        r"""
        :math:`E[x_0 \mid x_\sigma = x]` in place of the sites of diffusion priors.

        :param below: another noise level, for the one halfway between the logarithms.
        """
        z, sites = self.model.unravel(x), self.model.sites(x)
        for name in z:
            if (prior := noise_conditional_prior(sites[name]["fn"])) is not None:
                level = _level(prior, sigma)
                if below is not None:
                    level = jnp.sqrt(level * _level(prior, below))
                z[name] = prior.denoise(z[name], level)
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
        """Whether the means of the Normal sites depend on sites without noise."""
        z, sites = self.model.unravel(x), self.model.sites(x)
        means = eval_provenance(lambda **z: _parts(self.model.trace_of(z), x.dtype)[0].loc, **z)
        return any(noise_conditional_prior(sites[name]["fn"]) is None for name in means)

    def has_covariance(self, x: Array) -> bool:
        """Whether the Normal sites are few enough for a covariance, not variances alone."""
        return 0 < self._size(x) <= LARGEST_DENSE

    def num_products(self, x: Array) -> int:
        """How many products with the Jacobian of the denoiser a twist takes."""
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
        half = jnp.exp(-fall / 2)
        second = self.denoised(half * x + (1 - half) * first, sigma, new_sigma)
        whole = jnp.exp(-fall)
        third = self.denoised(whole * x + (1 - whole) * (2 * second - first), new_sigma)
        # The integral of exp(t - fall) times the parabola through the three, by quadrature: the
        # closed forms lose their digits where levels are close.
        nodes, parabolas = jnp.asarray(NODES, x.dtype), jnp.asarray(PARABOLAS, x.dtype)
        kernel = fall[:, None] * jnp.exp(-fall[:, None] * (1 - nodes))
        a, b, c = (kernel @ parabolas).T
        return whole * x + a * first + b * second + c * third

    def products(self, mean: Array, product: Product) -> Product:
        r"""
        Products with :math:`\nabla m`, as they are or by a few of them.

        :param mean: `m(x)`.
        :param product: products with its Jacobian at `x`.
        """
        size = self.data(mean)[0].loc.size
        if size > LARGEST_DENSE or self._is_exact(size, mean):
            return product
        return _by_directions(product, np.flatnonzero(self.is_noisy(mean)), mean)

    def informed(self, mean: Array, product: Product) -> tuple[Array, Array]:
        r""":math:`J` and :math:`J\, \nabla m`, each of shape `(dim_y, d)`."""
        loc, pull = jax.vjp(lambda mean: self.data(mean)[0].loc, mean)
        (rows,) = jax.vmap(pull)(jnp.eye(loc.size, dtype=loc.dtype))
        return rows, jax.vmap(product)(rows)

    def covariance(self, rows: Array, images: Array, sigma: Array) -> Array:
        r""":math:`\tau^2 J\, \nabla m\, J^\top` of these, at a noise level."""
        found = rows @ (self.variance(rows[0], sigma) * images).T
        found = (found + found.T) / 2
        added = jnp.broadcast_to(self.added(sigma), len(rows))
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

    def spread(self, mean: Array, product: Product, sigma: Array) -> Array:
        r"""
        The covariance :math:`\tau^2 J\, \nabla m\, J^\top` of the Normal sites, shape `(dim_y,
        dim_y)`; its diagonal alone for many, where :math:`\nabla m = c I`, with fixed random signs.
        """
        if self.has_covariance(mean):
            return lax.stop_gradient(self.covariance(*self.informed(mean, product), sigma))
        mask = self.is_noisy(mean)
        signs = random.rademacher(random.key(0), (NUM_PROBES, mean.size), mean.dtype) * mask
        push = jax.linearize(lambda mean: self.data(mean)[0].loc, mean)[1]
        share = jnp.clip(jnp.vdot(signs[0], product(signs[0])) / np.sum(mask), 0, 1)
        pushed = jax.vmap(push)(jnp.sqrt(self.variance(mean, sigma)) * signs)
        return lax.stop_gradient(share * jnp.mean(pushed**2, axis=0) + self.added(sigma))

    def log_density(self, mean: Array, spread: Array) -> Array:
        """Of the data at a mean with this covariance, -inf where it is not a number."""
        data, rest = self.data(mean)
        value = jnp.zeros((), mean.dtype) if rest is None else rest
        if spread.ndim == 2:
            covariance = with_noise(spread, data.scale)
            value += multivariate_normal.logpdf(data.value, data.loc, covariance)
        else:
            value += jnp.sum(norm.logpdf(data.value, data.loc, jnp.sqrt(spread + data.scale**2)))
        return jnp.where(value < jnp.inf, value, -jnp.inf)

    def data(self, mean: Array) -> tuple[GaussianData, Array | None]:
        """The Normal sites at a point, and the log density of all other data, None without any."""
        return _parts(self.model.sites(mean), mean.dtype)


def with_noise(spread: Array, scale: Array) -> Array:
    """The covariance of the Normal sites, that of their noise included."""
    # Any twist will do, but not one that rounding keeps from having a Cholesky factor.
    rounding = 4 * jnp.finfo(spread.dtype).eps * jnp.trace(spread)
    return spread + jnp.diag(scale**2 + rounding)


def _level(prior: Any, sigma: Any) -> Any:
    return prior.sigma if sigma is None else jnp.maximum(prior.at(sigma).sigma, prior.sigma)


def _positive(levels: Array) -> Array:
    """Something to divide by where there is no noise."""
    return jnp.where(levels > 0, levels, 1)


def _parts(sites: dict[str, Any], dtype: Any) -> tuple[GaussianData, Array | None]:
    normal, rest = [], []
    for site in sites.values():
        if not is_likelihood(site):
            continue
        base = _without_events(site["fn"])
        if type(base) is dist.Normal and site["scale"] is None:
            entries = (base.loc, base.scale, site["value"])
            shape = jnp.broadcast_shapes(jnp.shape(site["value"]), site["fn"].shape())
            normal.append([jnp.broadcast_to(entry, shape).ravel() for entry in entries])
        else:
            log_prob = jnp.sum(site["fn"].log_prob(site["value"]))
            rest.append(log_prob if site["scale"] is None else site["scale"] * log_prob)
    data = map(jnp.concatenate, zip(*normal, strict=True)) if normal else [jnp.zeros(0, dtype)] * 3
    return GaussianData(*data), jnp.sum(jnp.stack(rest)) if rest else None


def _by_directions(product: Product, noisy: np.ndarray, like: Array) -> Product:
    """The product with a matrix that is known in a few directions, and by its mean in the rest."""

    def restricted(v):
        return product(jnp.zeros_like(like).at[noisy].set(v))[noisy]

    key_range, key_rest = random.split(random.key(0))
    signs = random.rademacher(key_range, (NUM_DIRECTIONS, len(noisy)), like.dtype)
    basis = jnp.linalg.qr(jax.vmap(restricted)(signs).T)[0]
    sign = random.rademacher(key_rest, (len(noisy),), like.dtype)
    sign = sign - basis @ (basis.T @ sign)
    images = jax.vmap(restricted)(jnp.vstack([basis.T, sign]))
    core = images[:-1] @ basis
    values, vectors = jnp.linalg.eigh((core + core.T) / 2)
    # A covariance is positive, the Jacobian of a network need not be.
    values, directions = jnp.maximum(values, 0), basis @ vectors
    tiny = jnp.finfo(like.dtype).tiny
    rest = jnp.clip(jnp.vdot(sign, images[-1]) / jnp.maximum(jnp.vdot(sign, sign), tiny), 0, 1)

    def approximate(v):
        u = v[noisy]
        image = rest * u + directions @ ((values - rest) * (directions.T @ u))
        return jnp.zeros_like(v).at[noisy].set(image)

    return approximate


def _without_events(fn: Any) -> Any:
    """Beneath `to_event`, `expand` and `plate`, not beneath a mask."""
    while isinstance(fn, ExpandedDistribution | Independent):
        fn = fn.base_dist
    return fn
