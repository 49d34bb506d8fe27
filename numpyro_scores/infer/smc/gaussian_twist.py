# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
What the data say of a point with noise, if the prior were the Gaussian of its own moments: this
asks no network.

With the mean :math:`\mu` and the covariance `C` of the value `v` that the model sees, and
:math:`T = \tau^2 I` of the noise added to it, :math:`\tau^2 = \sigma^2 - \sigma_0^2`,

.. math:: m(x) = \mu + C (C + T)^{-1} (x - \mu), \qquad
          \mathrm{Cov}[v \mid x] = C (C + T)^{-1} T,

of which :mod:`~numpyro_scores.infer.smc.twist` makes the likelihood of a noisy point. At
:math:`\sigma_0`, where `m(x) = x`, it is the likelihood itself, whatever the prior.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.linear_data import is_linear
from numpyro_scores.infer.smc.masked_data import without_masks
from numpyro_scores.infer.smc.twist import DiffusionTwist, Product

LARGEST_COVARIANCE = 1_024  # entries with a covariance, not variances alone


class Moments(NamedTuple):
    """
    - **mean** - of the entries of noise-conditional priors, shape `(d,)`.
    - **covariance** - of these, shape `(d, d)`.
    """

    mean: Array
    covariance: Array


def moments_of(x: Array, twist: DiffusionTwist) -> Moments:
    r"""
    Of draws of the prior; entries of different draws of a noise-conditional prior, in a plate or of
    two sites, are independent.

    The covariance of few draws is too narrow in some directions: it is at least that of the noise
    :math:`\sigma_0` that a prior has in the model, and a share :math:`d / n` of its mean variance
    is added.

    :param x: draws, shape `(n, dim)`.
    """
    noisy = np.flatnonzero(twist.is_noisy(x[0]))
    draws, n = x[:, noisy], len(x)
    blocks = _blocks(twist.model, x[0])[noisy]
    mean = jnp.mean(draws, axis=0)
    centred = draws - mean
    floor = twist.levels(x[0])[noisy] ** 2
    if len(noisy) > LARGEST_COVARIANCE:
        return Moments(mean, jnp.diag(jnp.mean(centred**2, axis=0) + floor))
    covariance = centred.T @ centred / max(n - 1, 1) * (blocks[:, None] == blocks)
    size = float(np.bincount(blocks).max())
    share = jnp.mean(jnp.diagonal(covariance)) * min(size / n, 1.0) / size
    return Moments(mean, covariance + jnp.diag(floor + share))


def _blocks(model: FlatModel, x: Array) -> np.ndarray:
    """The number of the draw that each entry belongs to."""
    sites, found, first = model.sites(x), [], 0
    for name, value in sorted(model.unravel(x).items()):
        prior = noise_conditional_prior(sites[name]["fn"])
        shape = np.shape(value)
        num_batch = len(shape) - (0 if prior is None else len(prior.event_shape))
        num = int(np.prod(shape[:num_batch], dtype=int))
        size = int(np.prod(shape[num_batch:], dtype=int))
        found.append(first + np.repeat(np.arange(num), size))
        first += num
    return np.concatenate(found)


class GaussianTwist(DiffusionTwist):
    r"""
    The twist of a noise level, of the Gaussian of these moments.

    :param model: the model, with its arguments.
    :param moments: of its noise-conditional priors.
    :param sigma: the noise level.
    :param like: a point, of which only shape and dtype matter.
    """

    def __init__(self, model: FlatModel, moments: Moments, sigma: Array, like: Array):
        super().__init__(model.under(without_masks))
        self.moments = moments
        self.noisy = np.flatnonzero(self.is_noisy(like))
        #: :math:`\tau^2` of each entry of a prior, shape `(d,)`.
        self.added_noise = self.variance(like, sigma)[self.noisy]
        covariance = moments.covariance
        total = covariance + jnp.diag(self.added_noise)
        self._gain = cho_solve(cho_factor(total), covariance).T

    def mean(self, x: Array, sigma: Any = None) -> Array:
        """`m(x)`, and other sites as they are."""
        centred = x[self.noisy] - self.moments.mean
        return x.at[self.noisy].set(self.moments.mean + self._gain @ centred)

    def products(self, mean: Array, product: Product) -> Product:
        """As they are: each is a product with a known matrix."""
        return product

    def has_covariance(self, x: Array) -> bool:
        """Of many numbers, too, where it is the same for all particles, but for their scales."""
        is_small = 0 < self._size(x) <= LARGEST_COVARIANCE
        return super().has_covariance(x) or (is_small and is_linear(self, x))

    def num_products(self, x: Array) -> int:
        """None with the Jacobian of a network."""
        return 0

    def posterior(self, x: Array) -> Moments:
        r"""
        The moments of the value `v` given the data, with means that are linear about a point: of
        Normal sites of scales `s`, means `f` and :math:`J = \nabla f(x)`,

        .. math:: S = C - K J C, \quad K = C J^\top (J C J^\top + \mathrm{diag}\, s^2)^{-1}, \quad
                  \hat v = \mu + K (y - f(x) - J (\mu - x)).

        :param x: the point, with the values of all other sites.
        """
        x, (mean, covariance) = jnp.asarray(x), self.moments
        data, noisy = self.data(x)[0], self.noisy
        if not data.loc.size:
            return self.moments

        def loc(values):
            return self.data(x.at[noisy].set(values))[0].loc

        rows = jax.jacrev(loc)(x[noisy])
        images = rows @ covariance
        total = images @ rows.T + jnp.diag(data.scale**2)
        gain = cho_solve(cho_factor(total), images).T
        shift = data.value - data.loc - rows @ (mean - x[noisy])
        return Moments(mean + gain @ shift, covariance - gain @ images)


def transport(posterior: Moments, before: Array, after: Array) -> tuple[Array, Array, Array]:
    r"""
    The map :math:`x \mapsto \hat v + B (x - \hat v)` that carries :math:`N(\hat v, S + T)` to
    :math:`N(\hat v, S + T')` along the shortest way (Knott & Smith 1984),

    .. math:: B = R (R (S + T) R)^{-1/2} R, \qquad R = (S + T')^{1/2}.

    :param posterior: :math:`\hat v` and `S`.
    :param before: the diagonal of `T`.
    :param after: that of `T'`.
    :return: :math:`\hat v`, `B` and the logarithm of its determinant.
    """
    mean, covariance = posterior
    covariance = (covariance + covariance.T) / 2
    root_values, vectors = _eigen(covariance + jnp.diag(after))
    root = (vectors * jnp.sqrt(root_values)) @ vectors.T
    values, directions = _eigen(root @ (covariance + jnp.diag(before)) @ root)
    inverse = (directions / jnp.sqrt(values)) @ directions.T
    log_det = jnp.sum(jnp.log(root_values)) - jnp.sum(jnp.log(values)) / 2
    return mean, root @ inverse @ root, log_det


def _eigen(matrix: Array) -> tuple[Array, Array]:
    """Of a positive matrix, which rounding may have made a little less."""
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    smallest = jnp.finfo(matrix.dtype).eps * jnp.max(values)
    return jnp.maximum(values, smallest), vectors
