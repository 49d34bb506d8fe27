# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
How much wider Normal data are at a noise level, where their likelihood is that of the mean of the
value and not of the value itself.

Data `y` of scales `s` are seen in a frame of axes `U` that does not depend on the level,
:math:`u = U^\top ((y - f(m)) / s)`, in which the variances :math:`w_k` are added. The axes are the
left singular vectors of the means :math:`f(v) / s`: where the value is uncertain alike in all
directions, as within a mode, the numbers :math:`u_k` are then independent. Without axes a datum
would count as often as there are others that say the same, modes far from the data would weigh far
less at the levels between than at the first, and a replica that is in one could not leave it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax, random
from jax.scipy.stats import norm
from numpyro.distributions.distribution import Independent

from numpyro_scores.distributions._wrapped import base_of
from numpyro_scores.handlers import is_likelihood
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.trees import map_rows

NUM_LEVELS = 12  # at which the widths are measured
AT_ONCE = 32  # draws of the priors that are seen together
LARGEST_FRAME = 512  # numbers of a site with axes


class Frame(NamedTuple):
    """
    - **axes** - `U`, shape `(n, n)`, of all numbers of a site.
    - **scale** - their scales where it was made, of the shape of the data.
    """

    axes: Array
    scale: Array


class Widths(NamedTuple):
    """
    - **log_levels** - logarithms of noise levels, increasing, shape `(L,)`.
    - **variances** - what is added to the variances of Normal data at these, by site, each of shape
      `(L, *batch_shape)`; zero at the first. With a frame along its axes, as shares of the squared
      scales.
    - **frames** - by site, of those that have one.
    """

    log_levels: Array
    variances: Mapping[str, Array]
    frames: Mapping[str, Frame] = {}

    def at(self, name: str, sigma: Array) -> Array:
        """The variances of a site at a noise level, linear in its logarithm."""
        table = self.variances[name]
        position = jnp.interp(jnp.log(sigma), self.log_levels, jnp.arange(len(table), dtype=float))
        below = jnp.clip(jnp.floor(position).astype(int), 0, len(table) - 2)
        share = position - below
        return (1 - share) * table[below] + share * table[below + 1]

    def widened(self, name: str, base: dist.Normal, sigma: Array) -> dist.Normal:
        """The law of a site at a noise level."""
        added = self.at(name, sigma)
        if name in self.frames:
            return FramedNormal(base.loc, base.scale, self.frames[name], added)
        return dist.Normal(base.loc, jnp.sqrt(base.scale**2 + added))


class FramedNormal(dist.Normal):
    """
    Normal data with more variance along the axes of a frame. The log density of an entry is that of
    a coordinate: only their sum means something.

    :param added: to the variances of the coordinates, as shares, of the shape of the data.
    """

    def __init__(self, loc: Array, scale: Array, frame: Frame, added: Array):
        self._frame, self._added = frame, added
        super().__init__(loc, scale)

    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> Array:
        shape, frame = self.batch_shape, self._frame
        residual = jnp.broadcast_to((value - self.loc) / self.scale, shape)
        ratio = jnp.exp(2 * jnp.mean(jnp.log(self.scale / frame.scale)))
        seen = (residual.ravel() @ frame.axes).reshape(shape)
        return norm.logpdf(seen, 0, jnp.sqrt(1 + self._added / ratio)) - jnp.log(self.scale)


def measured_widths(
    key: Array, pilots: Array, rungs: Sequence[float], model: FlatModel, twist: DiffusionTwist
) -> Widths:
    """
    The mean squares of how far the data of a value differ from those of its mean given the noisy
    value.

    :param pilots: draws of the diffusion priors, shape `(num, d)`.
    :param rungs: noise levels, of which the first and the last count.
    """
    noise, frames = random.normal(key, pilots.shape, pilots.dtype), _frames(pilots[0], model, twist)

    def locs(x: Array) -> dict[str, Array]:
        return {name: _broadcast(base.loc, base) for name, base in _normal_sites(model, x).items()}

    def squares(name: str, residuals: Array) -> Array:
        if name in frames:
            frame = frames[name]
            flat = (residuals / frame.scale).reshape(len(residuals), -1)
            residuals = (flat @ frame.axes).reshape(residuals.shape)
        return jnp.mean(residuals**2, axis=0)

    loc = jax.vmap(locs)(pilots)

    def at(sigma):
        scale = jnp.sqrt(jnp.maximum(twist.variance(pilots[0], sigma), 0))
        mean = map_rows(lambda x: twist.mean(x, sigma), pilots + scale * noise, AT_ONCE)
        there = jax.vmap(locs)(mean)
        return {name: squares(name, loc[name] - there[name]) for name in loc}

    levels = jnp.asarray(np.geomspace(rungs[0], rungs[-1], NUM_LEVELS), pilots.dtype)
    variances = jax.tree.map(lambda table: table.at[0].set(0), lax.map(at, levels))
    return Widths(jnp.log(levels), variances, frames)


def _frames(x: Array, model: FlatModel, twist: DiffusionTwist) -> dict[str, Frame]:
    """Of the sites of which each entry counts once, at a point."""
    sites, noisy, found = model.sites(x), np.flatnonzero(twist.is_noisy(x)), {}
    for name, base in _normal_sites(model, x).items():
        size = int(np.prod(base.batch_shape, dtype=int))
        if not (_counts_once(sites[name]) and 1 < size <= LARGEST_FRAME):
            continue
        scale = _broadcast(base.scale, base)

        def white(x: Array, name: str = name, scale: Array = scale) -> Array:
            site = _normal_sites(model, x)[name]
            return (_broadcast(site.loc, site) / scale).ravel()

        rows = jnp.nan_to_num(jax.jacrev(white)(x)[:, noisy], posinf=0.0, neginf=0.0)
        found[name] = Frame(jnp.linalg.eigh(rows @ rows.T)[1], scale)
    return found


def _normal_sites(model: FlatModel, x: Array) -> dict[str, dist.Normal]:
    """The laws of the Normal data, by site."""
    bases = {
        name: base_of(site["fn"]) for name, site in model.sites(x).items() if is_likelihood(site)
    }
    return {name: base for name, base in bases.items() if type(base) is dist.Normal}


def _broadcast(value: Array, base: dist.Normal) -> Array:
    return jnp.broadcast_to(value, base.batch_shape)


def _counts_once(site: Mapping[str, Any]) -> bool:
    """Whether no mask, scale or expansion tells the entries of a site apart."""
    law = site["fn"]
    while isinstance(law, Independent):
        law = law.base_dist
    return type(law) is dist.Normal and jnp.ndim(1 if site["scale"] is None else site["scale"]) == 0
