# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A distribution that is known by its score alone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints

from numpyro_scores._callables import Score, as_pytree, check_field
from numpyro_scores._coordinates import on_border
from numpyro_scores._validation import is_concrete
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.with_score import density_with_score
from numpyro_scores.distributions._base import PointwiseDistribution
from numpyro_scores.distributions._coordinates import coordinates_of_support


class ScoreDistribution(PointwiseDistribution):
    r"""
    A density :math:`p` of which only the score :math:`s = \nabla \log p` is known.

    `log_prob` is the line integral of the score from a reference point,
    :math:`\int_0^1 s(r + t(x - r)) \cdot (x - r)\,dt` (**unnormalised**), and its gradient is the
    score itself. So Metropolis kernels (NUTS, HMC, MALA) target the density too, as long as the
    score is a gradient field; of a score that is not, `log_prob` is the value along that line.

    With a bounded support the line is one in the unconstrained coordinates `z` of NumPyro's
    `biject_to`: the integrand is :math:`s(x(z)) \cdot \partial x / \partial z\, (z - z_r)` between
    :math:`z_r` and `z`. It stays within a support of any shape, and a score that grows like
    :math:`1 / x` at the border, as that of a gamma or a beta density does, is smooth along it. The
    rule of `n` nodes is exact for an integrand that is a polynomial of degree below `2 n` along the
    line: without bounds that is a polynomial score; with bounds, a score :math:`a / x` on positive
    numbers. On the border itself, and outside, `log_prob` is minus infinity.

    :param score: `score(x) -> x.shape` for one unbatched point: a plain function or any callable
        pytree, such as a Flax module.
    :param event_shape: shape of one point.
    :param reference: the point :math:`r` where `log_prob` is zero, shape `event_shape`; best in
        the middle of the mass, and in the interior of the support. By default the point whose
        unconstrained coordinates are zero: 0, or 1 of the positive numbers, or the middle of an
        interval.
    :param quadrature: the rule of the integral; more nodes for a score that turns sharply between
        the reference and the points.
    :param support: a NumPyro constraint of one point, or of one entry of it.
    :raises ValueError: if the score does not map a point to its own shape, or `reference` is not in
        the interior of the support.
    """

    pytree_data_fields = ("score", "reference")
    untrained_fields = ("reference",)
    pytree_aux_fields = ("quadrature",)
    log_normalizer = None  # nobody knows it

    def __init__(
        self,
        score: Score,
        event_shape: Sequence[int] | int,
        *,
        reference: Any = None,
        quadrature: LineIntegral = LineIntegral(),
        support: constraints.Constraint = constraints.real,
        validate_args: bool | None = None,
    ):
        self.score = as_pytree("score", score)
        self.quadrature = quadrature
        super().__init__(event_shape, support, validate_args=validate_args)
        coordinates = coordinates_of_support(self._support)
        if reference is not None:
            self.reference = jnp.asarray(reference)
        elif coordinates is None:
            self.reference = jnp.zeros(self.event_shape)
        else:
            origin = jnp.zeros(coordinates.free_shape(self.event_shape))
            self.reference = jnp.asarray(coordinates.to_support(origin))
        if jnp.shape(self.reference) != self.event_shape:
            raise ValueError(
                f"reference must be a point of shape {self.event_shape}, got shape "
                f"{jnp.shape(self.reference)}."
            )
        if coordinates is not None:
            _check_interior(self.reference, coordinates, self._support)
        check_field("score", self.score, jnp.zeros(self.event_shape))

    def _log_density(self, x: Array) -> Array:
        # Bounds of integers would have no tangents.
        support = jax.tree.map(lambda bound: jnp.asarray(bound, x.dtype), self._support)
        params = (self.score, self.reference, support)
        return density_with_score(partial(_line_integral, self.quadrature), _score, params, x)

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        raise NotImplementedError(
            "ScoreDistribution cannot be sampled directly: only its score is known. Draw with "
            "MCMC(numpyro_scores.MALA(model), ...) or MCMC(numpyro_scores.ULA(model, ...), ...)."
        )


def _line_integral(quadrature: LineIntegral, params: Any, x: Array) -> Array:
    score, reference, support = params
    reference = jax.lax.convert_element_type(reference, x.dtype)
    coordinates = coordinates_of_support(support)
    if coordinates is None:
        return quadrature(score, reference, x)

    def free_score(z: Array) -> Array:
        """The derivative of the log density of `x`, not of that of `z`, in `z`."""
        x, pull_back = jax.vjp(coordinates.to_support, z)
        return pull_back(score(x))[0]

    origin, z = coordinates.from_support(reference), coordinates.from_support(x)
    inside = ~jnp.any(on_border(z)) & jnp.all(support(x))
    value = quadrature(free_score, origin, jnp.where(inside, z, origin))
    return jnp.where(inside, value, -jnp.inf)


def _score(params: Any, x: Array) -> Array:
    return params[0](x)


def _check_interior(reference: Array, coordinates: Any, support: Any) -> None:
    """
    :raises ValueError: if the point is outside of the support or on its border.
    """
    z, inside = coordinates.from_support(reference), support(reference)
    if not (is_concrete(z) and is_concrete(inside)):
        return
    if np.any(on_border(z)) or not np.all(inside):
        raise ValueError(
            f"reference must be in the interior of the support {support}, got {reference}: the log "
            "density of every point is an integral that begins there."
        )
