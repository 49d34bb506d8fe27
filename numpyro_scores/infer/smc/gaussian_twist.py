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

import copy
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


class Axes(NamedTuple):
    """
    - **values** - variances along the axes, shape `(d,)`.
    - **vectors** - the axes, in columns of the entries that they are of, shape `(d, d)`.
    """

    values: Array
    vectors: Array


class Moments(NamedTuple):
    """
    - **mean** - of the entries of noise-conditional priors, shape `(d,)`.
    - **covariance** - of these, shape `(d, d)`.
    - **axes** - of that without the noise of the model's own levels, None where nobody asks.
    """

    mean: Array
    covariance: Array
    axes: Any = None


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
        self._local: tuple[Array, Array, Array] | None = None

    @property
    def axes(self) -> Axes:
        """Of the covariance of the values without any noise."""
        return self.moments.axes

    def mean(self, x: Array, sigma: Any = None) -> Array:
        """`m(x)`, and other sites as they are."""
        if self._local is None:
            mean = self.moments.mean + self._gain @ (x[self.noisy] - self.moments.mean)
        else:
            start, mean, slopes = self._local
            vectors = self.axes.vectors
            mean = mean + vectors @ (slopes * ((x[self.noisy] - start) @ vectors))
        return x.at[self.noisy].set(mean)

    def products(self, mean: Array, product: Product) -> Product:
        """With the known matrix of the Gaussian, whatever the mean."""
        return lambda v: jnp.zeros_like(v).at[self.noisy].set(self._gain @ v[self.noisy])

    def has_covariance(self, x: Array) -> bool:
        """Of many numbers, too, where it is the same for all particles, but for their scales."""
        is_small = 0 < self._size(x) <= LARGEST_COVARIANCE
        return super().has_covariance(x) or (is_small and is_linear(self, x))

    def num_products(self, x: Array) -> int:
        """None with the Jacobian of a network."""
        return 0

    def rows(self, mean: Array) -> Array:
        """The Jacobian of the Normal sites' means by the value, shape `(dim_y, d)`."""

        def loc(values):
            return self.data(mean.at[self.noisy].set(values))[0].loc

        return jax.jacrev(loc)(mean[self.noisy])

    def covariance_given(self, rows: Array) -> Array:
        """The covariance of the value given the noisy point times these rows."""
        return (rows @ self._gain.T) * self.added_noise

    def about(self, x: Array, mean: Array, slopes: Array) -> "GaussianTwist":
        r"""
        The twist by another `m(x)`, which is known at a point: by that of the prior itself. The
        covariance is as it was.

        :param x: the point.
        :param mean: `m(x)` of the entries with noise, shape `(d,)`.
        :param slopes: of :math:`\nabla m` along the axes, shape `(d,)`.
        """
        local = copy.copy(self)
        local._local = x[self.noisy], mean, slopes
        return local


def axes_of(moments: Moments, twist: DiffusionTwist, x: Array) -> Axes:
    """
    Of the covariance without the noise of the model's own levels, for each draw of a prior by
    itself.

    :param x: a point, of which only shape and dtype matter.
    """
    noisy = np.flatnonzero(twist.is_noisy(x))
    blocks, floor = _blocks(twist.model, x)[noisy], twist.levels(x)[noisy] ** 2
    values, vectors = jnp.diagonal(moments.covariance), jnp.eye(len(noisy), dtype=x.dtype)
    numbers, sizes = np.unique(blocks, return_counts=True)
    if len(noisy) <= LARGEST_COVARIANCE:
        for size in np.unique(sizes):
            rows = np.stack([np.flatnonzero(blocks == b) for b in numbers[sizes == size]])
            grid = rows[:, :, None], rows[:, None, :]
            found = jnp.linalg.eigh(moments.covariance[grid])
            values, vectors = values.at[rows].set(found[0]), vectors.at[grid].set(found[1])
    return Axes(jnp.maximum(values - floor, 0), vectors)
