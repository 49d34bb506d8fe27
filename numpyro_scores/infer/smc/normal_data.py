# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The observed Normal sites of a model, as one vector of numbers, and how others are averaged."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import logsumexp
from jax.scipy.stats import multivariate_normal, norm
from numpyro.distributions.distribution import ExpandedDistribution, Independent

from numpyro_scores.handlers import is_likelihood

# Of N(0, 1): equal steps are more exact than Gauss's for a likelihood that is narrow.
LINE_NODES = np.linspace(-4.2, 4.2, 25)
LINE_WEIGHTS = np.exp(-(LINE_NODES**2) / 2) / np.sum(np.exp(-(LINE_NODES**2) / 2))


class GaussianData(NamedTuple):
    """Means, standard deviations and values of the Normal sites, each of shape `(dim_y,)`."""

    loc: Array
    scale: Array
    value: Array


def with_noise(spread: Array, scale: Array) -> Array:
    """The covariance of the Normal sites, that of their noise included."""
    # Any twist will do, but not one that rounding keeps from having a Cholesky factor.
    rounding = 4 * jnp.finfo(spread.dtype).eps * jnp.trace(spread)
    return spread + jnp.diag(scale**2 + rounding)


def parts_of(sites: dict[str, Any], dtype: Any) -> tuple[GaussianData, Array | None]:
    """The Normal sites of a trace, and the log density of all other data, None without any."""
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


def _without_events(fn: Any) -> Any:
    """Beneath `to_event`, `expand` and `plate`, not beneath a mask."""
    while isinstance(fn, ExpandedDistribution | Independent):
        fn = fn.base_dist
    return fn


def log_density(data: GaussianData, spread: Array) -> Array:
    """Of the data, whose means are uncertain with this covariance, or with these variances."""
    if spread.ndim == 2:
        covariance = with_noise(spread, data.scale)
        return jnp.asarray(multivariate_normal.logpdf(data.value, data.loc, covariance))
    scale = jnp.sqrt(spread + data.scale**2)
    return jnp.sum(norm.logpdf(data.value, data.loc, scale))


def line_of(slope: Array, pulled: Array) -> Array:
    """
    :param slope: of a log density.
    :param pulled: the covariance of the value times it.
    :return: the mean of the value, a standard deviation of the slope's direction further on.
    """
    square = jnp.vdot(slope, pulled)
    length = jnp.sqrt(jnp.where(square > 0, square, 1))
    return jnp.where(square > 0, pulled / length, 0)


def log_mean_along(f: Callable[[Array], Array], mean: Array, line: Array) -> Array:
    r""":math:`\log \int e^{f(m + t \delta)} N(t; 0, 1)\, dt`, zero for what is not a number."""
    values = jax.vmap(lambda t: f(mean + t * line))(jnp.asarray(LINE_NODES, mean.dtype))
    values = jnp.where(jnp.isnan(values), -jnp.inf, values)
    return logsumexp(values, b=jnp.asarray(LINE_WEIGHTS, mean.dtype))
