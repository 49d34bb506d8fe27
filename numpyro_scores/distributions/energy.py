# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A distribution that is known by its energy."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints

from numpyro_scores._callables import Energy, as_pytree
from numpyro_scores.distributions._base import PointwiseDistribution


class EnergyDistribution(PointwiseDistribution):
    r"""
    :math:`p(x) = \exp(-E(x)) / Z` for an energy :math:`E`: an energy-based model.

    `log_prob` is **unnormalised**, :math:`-E(x)`, unless `log_normalizer` is given; MCMC in `x`
    does not need it. If parameters of the energy are themselves inferred, :math:`Z` depends on
    them, and leaving it out gives a wrong posterior: then pass `log_normalizer`.

    :param energy: `energy(x) -> ()` for one unbatched point `x` of shape `event_shape`: a plain
        function or any callable pytree, such as a Flax module.
    :param event_shape: shape of one point.
    :param support: a NumPyro constraint of one point, or of one entry of it.
    :param log_normalizer: :math:`\log Z`, shape `()`, if known or estimated.
    :raises ValueError: if the energy does not map `event_shape` to a scalar.
    """

    pytree_data_fields = ("energy", "log_normalizer")

    def __init__(
        self,
        energy: Energy,
        event_shape: Sequence[int] | int,
        *,
        support: constraints.Constraint = constraints.real,
        log_normalizer: Any = None,
        validate_args: bool | None = None,
    ):
        self.energy = as_pytree("energy", energy)
        self.log_normalizer = log_normalizer
        if log_normalizer is not None and jnp.shape(log_normalizer) != ():
            raise ValueError(
                f"log_normalizer must have shape (), got shape {jnp.shape(log_normalizer)}; a "
                "batch of energies is written with expand or plate."
            )
        super().__init__(event_shape, support, validate_args=validate_args)
        point = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        shape = jax.eval_shape(self.energy, point).shape
        if shape != ():
            raise ValueError(
                f"An energy maps one point to a scalar: energy(x) for x of shape "
                f"{self.event_shape} must have shape (), got {shape}."
            )

    def _log_density(self, x: Array) -> Array:
        log_density = -self.energy(x)
        return log_density if self.log_normalizer is None else log_density - self.log_normalizer

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        raise NotImplementedError(
            "EnergyDistribution cannot be sampled directly: its normaliser is unknown. Draw with "
            "MCMC(numpyro_scores.MALA(model), ...) or MCMC(numpyro.infer.NUTS(model), ...)."
        )
