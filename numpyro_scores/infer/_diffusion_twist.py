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
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import multivariate_normal, norm
from numpyro.distributions.distribution import ExpandedDistribution, Independent

from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer._particle_model import ParticleModel
from numpyro_scores.infer.ladders import _is_likelihood

LARGEST_EXACT = 16  # numbers with a full covariance, of one product with the Jacobian for each
NUM_PROBES = 8  # for the lengths of the rows of J, of more numbers


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
                z[name] = prior.denoise(z[name], prior.at(sigma).sigma)
        return ravel_pytree(z)[0]

    def is_noisy(self, x: Array) -> Array:
        """1 for each entry of a noise-conditional prior, 0 for those of other sites."""
        z, sites = self._model.unravel(x), self._model.sites(x)
        for name in z:
            noisy = noise_conditional_prior(sites[name]["fn"]) is not None
            z[name] = jnp.full_like(z[name], noisy)
        return ravel_pytree(z)[0]

    def num_products(self, x: Array) -> int:
        """How many products with the Jacobian of the denoiser a twist takes."""
        (size,) = jax.eval_shape(lambda x: self._data(x)[0].loc, x).shape
        return size if size <= LARGEST_EXACT else 1

    def flow(self, x: Array, sigma: Array, new_sigma: Array) -> Array:
        """
        The probability flow from one noise level to another, by a step of Heun (Karras et al. 2022,
        algorithm 1): it carries draws of the one density to draws of the other.
        """
        step = new_sigma - sigma
        slope = (x - self.denoised(x, sigma)) / sigma
        predicted = x + step * slope
        return x + step / 2 * (
            slope + (predicted - self.denoised(predicted, new_sigma)) / new_sigma
        )

    def log_twist(self, x: Array, sigma: Array) -> Array:
        """The logarithm of the twist at one point, -inf where it is not a number."""
        clean, product = jax.linearize(lambda x: self.denoised(x, sigma), x)
        data, value = self._data(clean)
        if data.loc.size:
            covariance = lax.stop_gradient(sigma**2 * self._spread(clean, product))
            if covariance.ndim == 2:
                covariance = covariance + jnp.diag(data.scale**2)
                value += multivariate_normal.logpdf(data.value, data.loc, covariance)
            else:
                scale = jnp.sqrt(covariance + data.scale**2)
                value += jnp.sum(norm.logpdf(data.value, data.loc, scale))
        return jnp.where(value < jnp.inf, value, -jnp.inf)

    def _data(self, clean: Array) -> tuple[GaussianData, Array]:
        """The Normal sites at a clean point, and the log density of all other data."""
        normal, rest = [], jnp.zeros((), clean.dtype)
        for site in self._model.sites(clean).values():
            if not _is_likelihood(site):
                continue
            base = _without_events(site["fn"])
            if type(base) is dist.Normal and site["scale"] is None:
                entries = (base.loc, base.scale, site["value"])
                shape = jnp.shape(site["value"])
                normal.append([jnp.broadcast_to(entry, shape).ravel() for entry in entries])
            else:
                log_prob = jnp.sum(site["fn"].log_prob(site["value"]))
                rest += log_prob if site["scale"] is None else site["scale"] * log_prob
        if not normal:
            return GaussianData(*[jnp.zeros(0, clean.dtype)] * 3), rest
        return GaussianData(*map(jnp.concatenate, zip(*normal, strict=True))), rest

    def _spread(self, clean: Array, product: Any) -> Array:
        r"""
        :math:`J\, \nabla D\, J^\top`, or an estimate of its diagonal for many numbers: that of
        :math:`\operatorname{tr}(\nabla D) / d\; J J^\top`, with fixed random signs.
        """
        mask = self.is_noisy(clean)
        loc, pull = jax.vjp(lambda clean: self._data(clean)[0].loc, clean)
        if loc.size <= LARGEST_EXACT:
            (rows,) = jax.vmap(pull)(jnp.eye(loc.size, dtype=loc.dtype))
            rows = rows * mask
            spread = rows @ jax.vmap(product)(rows).T
            return (spread + spread.T) / 2
        signs = random.rademacher(random.key(0), (NUM_PROBES, clean.size), clean.dtype) * mask
        share = jnp.clip(jnp.vdot(signs[0], product(signs[0])) / jnp.sum(mask), 0, 1)
        push = jax.linearize(lambda clean: self._data(clean)[0].loc, clean)[1]
        return share * jnp.mean(jax.vmap(push)(signs) ** 2, axis=0)


def _without_events(fn: Any) -> Any:
    """Beneath `to_event`, `expand` and `plate`, not beneath a mask."""
    while isinstance(fn, ExpandedDistribution | Independent):
        fn = fn.base_dist
    return fn
