# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
The metric of a noise level by what the data say there.

With the Fisher information :math:`\Lambda` of the data on their locations `f` and the denoiser `D`,
the potential energy of a noisy point has the curvature

.. math:: \frac{1}{\sigma^2} (I - \nabla D) + J^\top \Lambda J, \qquad
          J = \nabla f(D(x))\, \nabla D(x),

but for what the bends of `f` and `D` add (Gauss-Newton). The first term is at most
:math:`1 / \sigma^2` for a denoiser of any data, since :math:`\sigma^2 \nabla D` is a covariance. So
the metric :math:`P = I / \sigma^2 + J^\top \Lambda J` leaves a curvature of at most one, however
small the noise of the data. With the singular values :math:`s_i` of :math:`\Lambda^{1/2} J` and its
right singular vectors :math:`v_i`

.. math:: P^{-1/2} = \sigma \left( I + \sum_i \left( (1 + \sigma^2 s_i^2)^{-1/2} - 1 \right)
          v_i v_i^\top \right).

Denoising diffusion restoration models (Kawar et al. 2022) have the singular values of a linear
operator in this place; for noisy values the denoiser belongs to the operator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax, random
from jax.scipy.linalg import solve_triangular

from numpyro_scores._validation import check_count
from numpyro_scores.distributions._wrapped import base_of, power_of
from numpyro_scores.handlers import is_likelihood
from numpyro_scores.infer.diffusion.walk import Metric
from numpyro_scores.infer.low_rank import LowRankRoot


@dataclass(frozen=True)
class GaussNewton:
    """
    A metric that follows the data of the model, for :class:`~numpyro_scores.AnnealedLangevin`: see
    :mod:`numpyro_scores.infer.diffusion.gauss_newton`.

    It is found at the start of each burst of steps, from where the chain is then, and stays as it
    is for these steps, whatever the chain and the other sites do meanwhile; where the model is
    linear and Gaussian it does not depend on where the chain is. That takes a product with
    the Jacobian of data and denoiser for each number that is measured, or for each unconstrained
    number of the priors if these are fewer; where both are more than `2 rank`, it is so many
    products, for the `rank` stiffest directions (one step of subspace iteration from those of the
    burst before), and all others are left to shorter steps. It is not found where it would cost
    more gradients than it saves.

    The locations are those of `Normal`, `MultivariateNormal`, `LogNormal`, `StudentT`, `Cauchy`,
    `Laplace`, `Logistic` and `Gumbel` data, the rates of `Poisson` and `Exponential` and the
    probabilities of `Bernoulli` and `Binomial` ones. Other data and factors count as flat, and
    shorten the steps as they would without a metric.

    :param rank: number of directions of data that have more than twice as many.
    """

    rank: int = 32

    def __post_init__(self) -> None:
        check_count("rank", self.rank)


class LevelMetric:
    """
    The metrics of the noise levels of one anneal.

    :param metric: the setting.
    :param locations: `locations(sigma, x)` of the data, see :func:`standard_locations`.
    :param is_prior: which entries are of noise-conditional priors; the others have no metric.
    :param sigma: a noise level, and
    :param like: a point, of which only shape and dtype matter.
    """

    def __init__(
        self,
        metric: GaussNewton,
        locations: Callable[[Any, Array], Array],
        is_prior: np.ndarray,
        sigma: Array,
        like: Array,
    ):
        self._locations, self._is_prior = locations, is_prior
        self._entries, self._like = np.flatnonzero(is_prior), like
        size = jax.eval_shape(locations, sigma, like).size
        smallest = min(size, len(self._entries))
        self._is_exact = smallest <= 2 * metric.rank
        self._transposed = self._is_exact and len(self._entries) < size
        self.num_directions = smallest if self._is_exact else metric.rank
        #: Products with the Jacobian, for each metric.
        self.num_products = min(smallest, 2 * metric.rank)

    def plain(self, sigma: Array) -> LowRankRoot:
        """A root without data, with directions from which those of the data are found."""
        shape, dtype = (self._like.size, self.num_directions), self._like.dtype
        directions = random.normal(random.key(0), shape, dtype) * self._is_prior[:, None]
        return self._root(sigma, directions, jnp.ones(self.num_directions, dtype))

    def at(self, sigma: Array, wanted: Array) -> Metric:
        """Of a noise level; without data where that is not `wanted`."""
        return Metric(
            root=lambda x, known: self.root(x, sigma, known, wanted),
            num_grad_evals=jnp.where(wanted, self.num_products, 0),
        )

    def root(self, x: Array, sigma: Array, known: LowRankRoot, wanted: Array) -> LowRankRoot:
        """
        The root of the inverse metric at a noise level; without data where that is not `wanted`.

        :param x: where the chain is, shape `(d,)`.
        :param known: of the burst before.
        """
        plain = self._root(sigma, known.directions, jnp.ones_like(known.stretch))
        # A loop of one round is skipped where no chain of a batch wants it; a `cond` is not.
        return lax.while_loop(
            lambda carry: carry[0],
            lambda carry: (jnp.array(False), self._found(x, sigma, carry[1])),
            (wanted, plain),
        )[1]

    def _found(self, x: Array, sigma: Array, plain: LowRankRoot) -> LowRankRoot:
        rows = self._rows(x, sigma, plain.directions[self._entries])
        _, values, vectors = jnp.linalg.svd(rows, full_matrices=False)
        found = jnp.all(jnp.isfinite(values)) & jnp.all(jnp.isfinite(vectors))
        stretch = jnp.where(found, 1 / jnp.sqrt(1 + (sigma * values) ** 2), 1)
        vectors = jnp.where(found, vectors.T, plain.directions[self._entries])
        directions = plain.directions.at[self._entries].set(vectors)
        return self._root(sigma, directions, stretch.astype(x.dtype))

    def _rows(self, x: Array, sigma: Array, directions: Array) -> Array:
        """
        A matrix with the largest singular values of the Jacobian of the locations, and their right
        singular vectors.
        """

        def of_prior(values):
            return self._locations(sigma, x.at[self._entries].set(values))

        values = x[self._entries]
        if self._transposed:
            return jax.jacfwd(of_prior)(values)
        loc, pull = jax.vjp(of_prior, values)
        probes = jnp.eye(loc.size, dtype=loc.dtype)
        if not self._is_exact:
            push = jax.linearize(of_prior, values)[1]
            probes = jnp.linalg.qr(jax.vmap(push)(directions.T).T)[0].T
        return jax.vmap(pull)(probes)[0]

    def _root(self, sigma: Array, directions: Array, stretch: Array) -> LowRankRoot:
        scale = jnp.where(self._is_prior, sigma, 1).astype(directions.dtype)
        return LowRankRoot(scale, directions, stretch)


def standard_locations(sites: dict[str, Any], dtype: Any) -> Array:
    """
    What the data are measured about, each in units in which their Fisher information on it is one,
    to the power that the model raises them to; shape `(n,)`.

    :param sites: the trace of a model.
    """
    found = [_standard_location(site) for site in sites.values() if is_likelihood(site)]
    parts = [location.ravel() for location in found if location is not None]
    return jnp.concatenate(parts).astype(dtype) if parts else jnp.zeros(0, dtype)


# The information of a datum on its location, in units of its scale.
_INFORMATION = {
    dist.Normal: lambda base: 1.0,
    dist.LogNormal: lambda base: 1.0,
    dist.Laplace: lambda base: 1.0,
    dist.Gumbel: lambda base: 1.0,
    dist.Cauchy: lambda base: 0.5,
    dist.Logistic: lambda base: 1 / 3,
    dist.StudentT: lambda base: (base.df + 1) / (base.df + 3),
}


def _standard_location(site: dict[str, Any]) -> Array | None:
    location = _of_unit_information(base_of(site["fn"]))
    if location is None:
        return None
    # One datum may stand for many, as in `obs=0.0`.
    shape = jnp.broadcast_shapes(jnp.shape(site["value"]), site["fn"].shape())
    location = jnp.broadcast_to(location, shape)
    power = power_of(site | {"value": jnp.broadcast_to(site["value"], shape)})
    if power is None:
        return location
    power = jnp.reshape(power, (*power.shape, *[1] * (location.ndim - power.ndim)))
    return jnp.sqrt(power) * location


def _of_unit_information(base: Any) -> Array | None:
    """A function of the parameters on which the information of a datum is one."""
    held = jax.lax.stop_gradient
    if type(base) in _INFORMATION:
        return jnp.sqrt(held(_INFORMATION[type(base)](base))) * base.loc / held(base.scale)
    if isinstance(base, dist.MultivariateNormal):
        tril = jnp.broadcast_to(held(base.scale_tril), (*base.shape(), base.event_shape[0]))
        loc = jnp.broadcast_to(base.loc, base.shape())
        return solve_triangular(tril, loc[..., None], lower=True)[..., 0]
    if isinstance(base, dist.Poisson):
        return 2 * jnp.sqrt(base.rate)
    if isinstance(base, dist.Exponential):
        return jnp.log(base.rate)
    if isinstance(base, dist.BernoulliProbs | dist.BernoulliLogits):
        return _angle(base, 1)
    if isinstance(base, dist.BinomialProbs | dist.BinomialLogits):
        return _angle(base, base.total_count)
    return None


def _angle(base: Any, count: Any) -> Array:
    r""":math:`2 \sqrt n \arcsin \sqrt p`, from the logit where it is given."""
    if isinstance(base, dist.BernoulliLogits | dist.BinomialLogits):
        # Half of it is arctan(sqrt(odds)), which has no slope where p rounds to 0 or 1.
        return 2 * jnp.sqrt(count) * jnp.arctan(jnp.exp(base.logits / 2))
    return 2 * jnp.sqrt(count) * jnp.arcsin(jnp.sqrt(base.probs))
