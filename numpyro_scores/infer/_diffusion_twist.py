# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Twists of a diffusion prior: what the data say of a point with noise.

The perfect one is :math:`E[p(y | x_0) \mid x_\sigma = x]`. Where an observed site is Normal with
mean :math:`f(x_0)` and standard deviation `s`, the two moments of :math:`x_0` that the denoiser
knows, :math:`D(x)` and :math:`\sigma^2 \nabla D(x)`, give

.. math:: N\left(y;\, f(D(x)),\, s^2 + \sigma^2 J\, \nabla D(x)\, J^\top\right),
          \qquad J = \nabla f(D(x)),

(Boys et al. 2024, "Tweedie moment projected diffusions", equation 8), perfect if all is linear and
Gaussian. Other sites see the denoised value itself (Chung et al. 2023).

Up to 16 numbers take a product with :math:`\nabla D` for each. More take a few in all, for
:math:`\nabla D \approx c\, (I - Q Q^\top) + Q\, (Q^\top \nabla D\, Q)\, Q^\top`, with four
directions `Q` where :math:`\nabla D` is large (Halko, Martinsson & Tropp 2011, algorithm 4.1), and
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

from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer._particle_model import ParticleModel
from numpyro_scores.infer.ladders import _is_likelihood

LARGEST_EXACT = 16  # numbers, of one product with the Jacobian for each
LARGEST_DENSE = 64  # numbers with a full covariance
NUM_DIRECTIONS = 4  # in which the covariance of the clean value is known
NUM_PROBES = 8  # for the lengths of the rows of J, of more numbers

Product = Callable[[Array], Array]


class GaussianData(NamedTuple):
    """Means, standard deviations and values of the Normal sites, each of shape `(dim_y,)`."""

    loc: Array
    scale: Array
    value: Array


class DiffusionTwist:
    """
    :param model: the model, with its arguments.
    """

    def __init__(self, model: ParticleModel):
        self._model = model

    def denoised(self, x: Array, sigma: Array) -> Array:
        r""":math:`E[x_0 \mid x_\sigma = x]` in place of the sites of diffusion priors."""
        z, sites = self._model.unravel(x), self._model.sites(x)
        for name in z:
            if (prior := noise_conditional_prior(sites[name]["fn"])) is not None:
                z[name] = prior.denoise(z[name], _level_of(prior, sigma))
        return ravel_pytree(z)[0]

    def levels(self, x: Array, sigma: Any) -> Array:
        """
        The noise level of each entry, 1 where there is none: of a diffusion prior `sigma` within
        what there is between its own level in the model and the largest of its process.
        """
        sites, parts = self._model.sites(x), []
        for name, value in sorted(self._model.unravel(x).items()):
            prior = noise_conditional_prior(sites[name]["fn"])
            level = 1.0 if prior is None else _level_of(prior, sigma)
            parts.append(jnp.full(np.size(value), level, x.dtype))
        return jnp.concatenate(parts)

    def is_noisy(self, x: Array) -> np.ndarray:
        """Whether each entry is one of a noise-conditional prior."""
        sites = self._model.sites(x)
        parts = [
            np.full(np.size(value), noise_conditional_prior(sites[name]["fn"]) is not None)
            for name, value in sorted(self._model.unravel(x).items())
        ]
        return np.concatenate(parts)

    def varies(self, x: Array) -> bool:
        """Whether the means of the Normal sites depend on sites without noise."""
        z, sites = self._model.unravel(x), self._model.sites(x)
        means = eval_provenance(lambda **z: _parts(self._model.trace_of(z), x.dtype)[0].loc, **z)
        return any(noise_conditional_prior(sites[name]["fn"]) is None for name in means)

    def num_products(self, x: Array) -> int:
        """How many products with the Jacobian of the denoiser a twist takes."""
        (size,) = jax.eval_shape(lambda x: self._data(x)[0].loc, x).shape
        if size > LARGEST_DENSE:
            return 1
        return size if self._is_exact(size, x) else 2 * NUM_DIRECTIONS + 1

    def _is_exact(self, size: int, x: Array) -> bool:
        # A product with the denoiser's Jacobian at each move of other sites would be too many.
        return size <= LARGEST_EXACT and not self.varies(x)

    def flow(self, x: Array, sigma: Array, new_sigma: Array) -> Array:
        """
        The probability flow from one noise level to another, by a step of Heun (Karras et al. 2022,
        algorithm 1): it carries draws of the one density to draws of the other.
        """
        level, new_level = self.levels(x, sigma), self.levels(x, new_sigma)
        step = new_level - level
        slope = (x - self.denoised(x, sigma)) / level
        predicted = x + step * slope
        new_slope = (predicted - self.denoised(predicted, new_sigma)) / new_level
        return x + step * (slope + new_slope) / 2

    def products(self, clean: Array, product: Product) -> Product:
        r"""
        Products with :math:`\nabla D`, as they are or by a few of them.

        :param clean: the denoised value.
        :param product: products with the Jacobian of the denoiser there.
        """
        size = self._data(clean)[0].loc.size
        if size > LARGEST_DENSE or self._is_exact(size, clean):
            return product
        return _by_directions(product, np.flatnonzero(self.is_noisy(clean)), clean)

    def spread(self, clean: Array, product: Product, sigma: Array) -> Array:
        r"""
        The covariance :math:`\sigma^2 J\, \nabla D\, J^\top` of the Normal sites, shape `(dim_y,
        dim_y)`; its diagonal alone for many, where :math:`\nabla D = c I`, with fixed random signs.
        """
        mask, level = self.is_noisy(clean), self.levels(clean, sigma)
        loc, pull = jax.vjp(lambda clean: self._data(clean)[0].loc, clean)
        if loc.size == 0:
            return loc
        if loc.size <= LARGEST_DENSE:
            (rows,) = jax.vmap(pull)(jnp.eye(loc.size, dtype=loc.dtype))
            rows = rows * mask
            spread = (rows * level**2) @ jax.vmap(product)(rows).T
            return lax.stop_gradient((spread + spread.T) / 2)
        signs = random.rademacher(random.key(0), (NUM_PROBES, clean.size), clean.dtype) * mask
        push = jax.linearize(lambda clean: self._data(clean)[0].loc, clean)[1]
        share = jnp.clip(jnp.vdot(signs[0], product(signs[0])) / np.sum(mask), 0, 1)
        return lax.stop_gradient(share * jnp.mean(jax.vmap(push)(level * signs) ** 2, axis=0))

    def log_density(self, clean: Array, spread: Array) -> Array:
        """Of the data at a clean value with this covariance, -inf where it is not a number."""
        data, value = self._data(clean)
        if spread.ndim == 2:
            # Any twist will do, but not one that rounding keeps from having a Cholesky factor.
            rounding = 4 * jnp.finfo(spread.dtype).eps * jnp.trace(spread)
            covariance = spread + jnp.diag(data.scale**2 + rounding)
            value += multivariate_normal.logpdf(data.value, data.loc, covariance)
        else:
            value += jnp.sum(norm.logpdf(data.value, data.loc, jnp.sqrt(spread + data.scale**2)))
        return jnp.where(value < jnp.inf, value, -jnp.inf)

    def _data(self, clean: Array) -> tuple[GaussianData, Array]:
        """The Normal sites at a clean point, and the log density of all other data."""
        return _parts(self._model.sites(clean), clean.dtype)


def _level_of(prior: Any, sigma: Any) -> Any:
    return prior.at(jnp.maximum(sigma, prior.sigma)).sigma


def _parts(sites: dict[str, Any], dtype: Any) -> tuple[GaussianData, Array]:
    normal, rest = [], jnp.zeros((), dtype)
    for site in sites.values():
        if not _is_likelihood(site):
            continue
        base = _without_events(site["fn"])
        if type(base) is dist.Normal and site["scale"] is None:
            entries = (base.loc, base.scale, site["value"])
            shape = jnp.broadcast_shapes(jnp.shape(site["value"]), site["fn"].shape())
            normal.append([jnp.broadcast_to(entry, shape).ravel() for entry in entries])
        else:
            log_prob = jnp.sum(site["fn"].log_prob(site["value"]))
            rest += log_prob if site["scale"] is None else site["scale"] * log_prob
    if not normal:
        return GaussianData(*[jnp.zeros(0, dtype)] * 3), rest
    return GaussianData(*map(jnp.concatenate, zip(*normal, strict=True))), rest


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
