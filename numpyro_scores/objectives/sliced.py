# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sliced score matching."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._callables import Energy, Score, as_score
from numpyro_scores._validation import check_count
from numpyro_scores.densities import traces
from numpyro_scores.objectives._energy import free_field_of
from numpyro_scores.objectives._points import as_float_points


@dataclass(frozen=True)
class SlicedScoreMatching:
    r"""
    Sliced score matching (Song, Garg, Shi & Ermon 2019, equations 7 and 8):

    .. math::
        \mathbb E_{x, v} \left[ v^T \nabla s(x) v + \tfrac12 (v^T s(x))^2 \right]
        \quad \text{or, with its variance reduced,} \quad
        \mathbb E_{x, v} \left[ v^T \nabla s(x) v + \tfrac12 |s(x)|^2 \right],

    summed over the entries of a point and averaged over projections and batch. With
    :math:`\mathbb E[v v^T] = I` both have the expectation and so the minimum of
    :class:`ImplicitScoreMatching`, at the cost of `num_projections` Jacobian-vector products.

    A distribution with a bounded support is matched in its unconstrained coordinates, as by
    :class:`ImplicitScoreMatching`.

    :param num_projections: projections `v` a point, fresh at every call.
    :param projection: `projection(key, shape, dtype)`, of identity covariance: one of
        :func:`~numpyro_scores.densities.traces.rademacher`,
        :func:`~numpyro_scores.densities.traces.sphere`,
        :func:`~numpyro_scores.densities.traces.gaussian`.
    :param variance_reduced: take :math:`|s|^2` for its sliced estimate.
    """

    num_projections: int = 1
    projection: Callable[..., Array] = traces.rademacher
    variance_reduced: bool = True

    def __post_init__(self):
        check_count("num_projections", self.num_projections)

    def __call__(self, module: Energy | Score, x: Array, *, key: Array) -> Array:
        """
        :param module: an energy, `x -> ()`, or a score, `x -> x.shape`, on one unbatched point, or
            an unnormalised distribution.
        :param x: points, shape `(n, *event_shape)`.
        :param key: key of the projections.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch or the output has another shape.
        """
        field, x = free_field_of(module, as_float_points(x))
        score = as_score(field, x[0])

        def loss(x, key):
            s, jvp = jax.linearize(score, x)

            def slice_(key):
                v = self.projection(key, x.shape, x.dtype)
                return jnp.vdot(v, jvp(v)), jnp.vdot(v, s) ** 2

            keys = random.split(key, self.num_projections)
            curvature, square = jax.tree.map(jnp.mean, jax.vmap(slice_)(keys))
            return curvature + (jnp.vdot(s, s) if self.variance_reduced else square) / 2

        return jnp.mean(jax.vmap(loss)(x, random.split(key, len(x))))
