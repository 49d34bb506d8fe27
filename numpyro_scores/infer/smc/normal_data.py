# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The observed Normal sites of a model, as one vector of numbers, and all others."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.stats import multivariate_normal, norm
from numpyro.distributions.distribution import ExpandedDistribution, Independent

from numpyro_scores.handlers import is_likelihood


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
    """The Normal sites of a trace, and the log densities of all other numbers, None without any."""
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
            rest.append(_log_densities(site, base))
    data = map(jnp.concatenate, zip(*normal, strict=True)) if normal else [jnp.zeros(0, dtype)] * 3
    return GaussianData(*data), jnp.concatenate(rest) if rest else None


def _log_densities(site: dict[str, Any], base: Any) -> Array:
    """Of each number, by the law beneath events and expansions."""
    shape = jnp.broadcast_shapes(jnp.shape(site["value"]), site["fn"].shape())
    num_axes = len(shape) - base.event_dim
    log_probs = jnp.broadcast_to(base.log_prob(site["value"]), shape[:num_axes])
    if site["scale"] is not None:
        own = num_axes - len(shape) + site["fn"].event_dim
        log_probs = jnp.reshape(site["scale"], (*jnp.shape(site["scale"]), *[1] * own)) * log_probs
    return log_probs.ravel()


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
