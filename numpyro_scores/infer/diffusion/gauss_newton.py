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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax, random
from jax.scipy.linalg import solve_triangular

from numpyro_scores._validation import check_count
from numpyro_scores.distributions._wrapped import base_of, power_of
from numpyro_scores.handlers import is_likelihood
from numpyro_scores.infer.low_rank import LowRankRoot


@dataclass(frozen=True)
class GaussNewton:
    """
    A metric that follows the data of the model, for :class:`~numpyro_scores.AnnealedLangevin`: see
    :mod:`numpyro_scores.infer.diffusion.gauss_newton`.

    It is found at the start of each noise level at a *scout*, a point that comes down the levels
    beside the chain with a noise of its own, by one step in each metric; so it does not depend on
    where the chain is (but for the other sites, a noise scale, which are those of the chain then),
    and stays for the level. A metric that followed the chain would change the law of its draws
    wherever the Jacobian of the data varies. If the stiffest direction of the chain is another one
    than the scout's, as for data that are far from linear, it does without a metric from then on,
    and so it does where a metric would cost more gradients than it saves.

    A metric takes a product with the Jacobian of data and denoiser for each number that is
    measured, or for each unconstrained number of the priors if these are fewer; where both are more
    than `2 rank`, it is so many products, for the `rank` stiffest directions (one step of subspace
    iteration from those of the level before), and all others are left to shorter steps.

    The locations are those of `Normal`, `MultivariateNormal`, `LogNormal`, `StudentT`, `Cauchy`,
    `Laplace`, `Logistic` and `Gumbel` data, the rates of `Poisson` and `Exponential` and the
    probabilities of `Bernoulli` and `Binomial` ones. Other data and factors count as flat, and
    shorten the steps as they would without a metric.

    :param rank: number of directions of data that have more than twice as many.
    """

    rank: int = 32

    def __post_init__(self) -> None:
        check_count("rank", self.rank)


# How far the scout may move in a step, in noise levels; and the curvature in a metric, one by its
# formula, from which on it is that of another place.
LONGEST, LARGEST_CURVATURE = 5.0, 4.0


class Scout(NamedTuple):
    """
    - **x** - a point that comes down the noise levels beside a chain, shape `(d,)`.
    - **root** - of the inverse metric there.
    - **is_apart** - whether the chain is in a place with another metric.
    """

    x: Array
    root: LowRankRoot
    is_apart: Array


def computed_if(wanted: Array, compute: Callable[[], Any], otherwise: Any) -> Any:
    """As `lax.cond`, but nothing is computed where no element of a batch wants it."""
    return lax.while_loop(
        lambda carry: carry[0], lambda carry: (jnp.array(False), compute()), (wanted, otherwise)
    )[1]


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
        self._entries = np.flatnonzero(is_prior)
        size = jax.eval_shape(locations, sigma, like).size
        smallest = min(size, len(self._entries))
        self._is_exact = smallest <= 2 * metric.rank
        self._transposed = self._is_exact and len(self._entries) < size
        self.num_directions = smallest if self._is_exact else metric.rank
        #: Products with the Jacobian for each metric, and the step of the scout.
        self.num_grad_evals = min(smallest, 2 * metric.rank) + 1

    def start(self, x: Array, sigma: Array) -> Scout:
        """A scout, with directions from which those of the data are found."""
        shape = x.size, self.num_directions
        directions = random.normal(random.key(0), shape, x.dtype) * self._is_prior[:, None]
        root = self._root(sigma, directions, jnp.ones(self.num_directions, x.dtype))
        return Scout(x, root, jnp.array(False))

    def moved(
        self,
        key: Array,
        scout: Scout,
        x: Array,
        gradient: Callable[[Array], Array],
        sigma: Array,
        curvature: Array,
        wanted: Array,
    ) -> Scout:
        """
        The scout at a noise level, with its metric; without data where that is not `wanted`. It
        makes a step of one, which brings a Gaussian of this metric at once where it belongs.

        :param x: the chain, of which the scout takes the sites that have no metric.
        :param gradient: of the potential energy at this level.
        :param curvature: that the chain met last, without a metric: it shortens a step in none.
        """
        here = jnp.where(self._is_prior, scout.x, x)
        plain = self._root(sigma, scout.root.directions, jnp.ones_like(scout.root.stretch))
        root = computed_if(wanted, lambda: self._found(here, sigma, plain), plain)
        step = jnp.where(wanted, 1, 1 / jnp.maximum(1, sigma**2 * curvature))
        move = step * root.unwhiten(root.whiten(gradient(here))) * self._is_prior
        # No further than a few noise levels: the prior may be far from what it was expected to be.
        longest = LONGEST * sigma * np.sqrt(len(self._entries))
        move *= jnp.minimum(1, longest / jnp.maximum(jnp.linalg.norm(move), longest))
        noise = root.unwhiten(random.normal(key, x.shape, x.dtype)) * self._is_prior
        new = here - move + jnp.sqrt(step) * noise
        new = jnp.where(jnp.all(jnp.isfinite(new)), new, here)
        return scout._replace(x=new, root=root)

    def compared(self, scout: Scout, curvature: Array, wanted: Array) -> Scout:
        """
        The scout, after the chain has met this curvature in its metric: where the stiffest
        direction of the chain is another one, it is of no more use.
        """
        largest = LARGEST_CURVATURE
        if not self._is_exact:
            largest = jnp.maximum(largest, jnp.min(scout.root.stretch) ** -2 / 4)
        return scout._replace(is_apart=scout.is_apart | (wanted & ~(curvature <= largest)))

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
