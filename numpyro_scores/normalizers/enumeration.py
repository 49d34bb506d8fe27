# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The sum over all states, one block of them at a time."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp

from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.normalizers._base import ExactMethod

MAX_STATES = 2**25
STATES_AT_A_TIME = 2**14


@dataclass(frozen=True)
class Enumeration(ExactMethod):
    r"""
    :math:`\log Z = \log \sum_s e^{\ell(s)}` over all states, up to :math:`2^{25}` of them, in
    blocks of bounded memory. Of a restricted Boltzmann machine the states of its smaller side are
    summed, those of the other side in closed form; with continuous visible units, the hidden side.
    """

    def refusal(self, distribution: BoltzmannDistribution) -> str | None:
        num_states, num_sites, _ = distribution.partition_sum()
        if num_states**num_sites <= MAX_STATES:
            return None
        return (
            f"would sum {num_states}^{num_sites} states, of which it takes up to 2^25: lattices "
            "and graphs of up to 25 sites with two states, machines whose smaller side (the "
            "hidden one, with continuous visible units) has up to 25 units."
        )

    def _log_normalizer(self, distribution: BoltzmannDistribution) -> Array:
        num_states, num_sites, log_weight = distribution.partition_sum()
        total = num_states**num_sites
        size = min(total, STATES_AT_A_TIME)
        place_values = num_states ** jnp.arange(num_sites)[None]

        # Derivatives compute a block again instead of keeping all of them.
        @jax.checkpoint
        def log_sum(start):
            numbers = start + jnp.arange(size)
            states = numbers[:, None] // place_values % num_states
            log_weights = jax.vmap(log_weight)(states)
            return logsumexp(jnp.where(numbers < total, log_weights, -jnp.inf))

        return logsumexp(lax.map(log_sum, jnp.arange(0, total, size)))
