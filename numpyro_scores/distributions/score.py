# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A distribution that is known by its score alone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints

from numpyro_scores._callables import Score, as_pytree, check_field
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.with_score import density_with_score
from numpyro_scores.distributions._base import PointwiseDistribution


class ScoreDistribution(PointwiseDistribution):
    r"""
    A density :math:`p` of which only the score :math:`s = \nabla \log p` is known.

    `log_prob` is the line integral of the score from a reference point,
    :math:`\int_0^1 s(r + t(x - r)) \cdot (x - r)\,dt` (**unnormalised**), and its gradient is the
    score itself. So Metropolis kernels (NUTS, HMC, MALA) target the density too, as long as the
    score is a gradient field; of a score that is not, `log_prob` is the value along that line.

    :param score: `score(x) -> x.shape` for one unbatched point: a plain function or any callable
        pytree, such as a Flax module.
    :param event_shape: shape of one point.
    :param reference: the point :math:`r` where `log_prob` is zero, shape `event_shape`; best in
        the middle of the mass. Zero by default.
    :param quadrature: the rule of the integral; more nodes for a score that turns sharply between
        the reference and the points.
    :param support: a NumPyro constraint of one point, or of one entry of it.
    :raises ValueError: if the score does not map a point to its own shape.
    """

    pytree_data_fields = ("score", "reference")
    untrained_fields = ("reference",)
    pytree_aux_fields = ("quadrature",)

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
        self.reference = (
            jnp.zeros(self.event_shape) if reference is None else jnp.asarray(reference)
        )
        if jnp.shape(self.reference) != self.event_shape:
            raise ValueError(
                f"reference must be a point of shape {self.event_shape}, got shape "
                f"{jnp.shape(self.reference)}."
            )
        check_field("score", self.score, jnp.zeros(self.event_shape))

    def _log_density(self, x: Array) -> Array:
        params = (self.score, self.reference)
        return density_with_score(partial(_line_integral, self.quadrature), _score, params, x)

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        raise NotImplementedError(
            "ScoreDistribution cannot be sampled directly: only its score is known. Draw with "
            "MCMC(numpyro_scores.MALA(model), ...) or MCMC(numpyro_scores.ULA(model, ...), ...)."
        )


def _line_integral(quadrature: LineIntegral, params: Any, x: Array) -> Array:
    score, reference = params
    return quadrature(score, jax.lax.convert_element_type(reference, x.dtype), x)


def _score(params: Any, x: Array) -> Array:
    score, _ = params
    return score(x)
