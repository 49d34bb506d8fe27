# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The product of densities."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from numpyro_scores.distributions._base import PointwiseDistribution, check_log_normalizer


class ProductOfExperts(PointwiseDistribution):
    r"""
    :math:`p(x) = \frac1Z \prod_i p_i(x)^{w_i}` (Hinton 2002, "Training products of experts by
    minimizing contrastive divergence", equation 1, with powers).

    `log_prob` is **unnormalised**, :math:`\sum_i w_i \log p_i(x)`, unless `log_normalizer` is
    given. It cannot be drawn from without MCMC. With noise added, the product is not that of the
    noisy experts: it has no `at(sigma)`, even if they are diffusion priors, and is not for
    `AnnealedLangevin`.

    :param experts: NumPyro distributions of one event shape, continuous, without batch shape.
    :param powers: :math:`w_i`, shape `(num_experts,)`; all 1 by default.
    :param log_normalizer: :math:`\log Z`, shape `()`, if known or estimated.
    :raises TypeError: if an expert is no distribution.
    :raises ValueError: if there are none, shapes or supports differ.
    """

    pytree_data_fields = ("experts", "powers", "log_normalizer")

    def __init__(
        self,
        experts: Sequence[dist.Distribution],
        powers: Any = None,
        *,
        log_normalizer: Any = None,
        validate_args: bool | None = None,
    ):
        if isinstance(experts, dist.Distribution):
            raise TypeError(f"Experts must be a sequence of distributions, got {experts!r}.")
        experts = tuple(experts)
        for expert in experts:
            if not isinstance(expert, dist.Distribution):
                raise TypeError(f"Experts must be NumPyro distributions, got {expert!r}.")
        shapes = [(expert.batch_shape, expert.event_shape) for expert in experts]
        if not shapes or len(set(shapes)) > 1 or shapes[0][0] != () or shapes[0][1] == ():
            raise ValueError(
                "Experts must have the batch shape () and one event shape with at least one axis, "
                f"got (batch_shape, event_shape) {shapes}. Batch axes become event axes with "
                "to_event."
            )
        supports = [expert.support for expert in experts]
        # NumPyro's densities go on smoothly outside their supports, which must bound the product.
        if any(support != supports[0] for support in supports):
            raise ValueError(
                f"Experts must have one support, got {supports}. Give each that of the product: "
                "for a Normal on the positive numbers, dist.TruncatedNormal(0.0, 1.0, low=0.0)."
            )
        self.experts = experts
        self.powers = jnp.ones(len(experts)) if powers is None else jnp.asarray(powers)
        if self.powers.shape != (len(experts),):
            raise ValueError(
                f"powers must have one entry for each of the {len(experts)} experts, got shape "
                f"{self.powers.shape}."
            )
        check_log_normalizer(log_normalizer)
        self.log_normalizer = log_normalizer
        super().__init__(experts[0].event_shape, supports[0], validate_args=validate_args)

    def _log_density(self, x: Array) -> Array:
        log_density: Any = sum(
            _raised(expert.log_prob(x), power)
            for power, expert in zip(self.powers, self.experts, strict=True)
        )
        return log_density if self.log_normalizer is None else log_density - self.log_normalizer

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """
        :raises NotImplementedError: always.
        """
        raise NotImplementedError(
            "ProductOfExperts cannot be sampled directly; draw with "
            "MCMC(numpyro_scores.MALA(model), ...) or MCMC(numpyro.infer.NUTS(model), ...)."
        )


def _raised(log_density: Any, power: Array) -> Any:
    """The log density of a power; to the power 0 nothing is left of a density that is zero."""
    is_nothing = (power == 0) & (log_density == -jnp.inf)
    return jnp.where(is_nothing, 0.0, power * jnp.where(is_nothing, 0.0, log_density))
