# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Lower bounds of the likelihood of a latent-variable model from an approximate posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from numpyro_scores.diagnostics._samples import as_samples
from numpyro_scores.diagnostics.likelihood.importance import log_mean_weight, log_weights_of


class EvidenceBounds(NamedTuple):
    r"""
    What :func:`evidence_bounds` returns, one number for each point, in nats. On average both are at
    most :math:`\log p(y)`, and the first at most the second.

    - **elbo** - the evidence lower bound.
    - **elbo_standard_error** - of it.
    - **importance_weighted** - the bound of all draws together.
    - **standard_error** - of the latter.
    """

    elbo: Array
    elbo_standard_error: Array
    importance_weighted: Array
    standard_error: Array


def evidence_bounds(
    log_joint: Callable[[Array, Array], Array],
    proposal: Callable[[Array], Any],
    points: Array,
    *,
    key: Array,
    num_draws: int = 1_000,
    block_size: int = 16,
) -> EvidenceBounds:
    r"""
    With weights :math:`w_k = p(y, z_k) / q(z_k | y)` of draws :math:`z_k \sim q`, the evidence
    lower bound :math:`E \log w` and the importance-weighted bound :math:`E \log \frac1K \sum_k
    w_k` (Burda, Grosse & Salakhutdinov 2016), from the same draws. The first falls short of
    :math:`\log p(y)` by the divergence of `q` from the posterior; the second rises to it with the
    number of draws.

    :param log_joint: :math:`\log p(y, z)`, `(z, y) -> ()`; of a decoder
        `GeneratorPrior(decoder, k).log_joint` with its noise.
    :param proposal: `q`, a NumPyro distribution of `z` for one point `y`, such as an encoder's.
    :param points: shape `(n, *event_shape)`.
    :param key: key of the draws.
    :param num_draws: `K`, at least 2.
    :param block_size: points evaluated at a time.
    :raises ValueError: if points are not finite, a number is not a positive integer, or
        `log_joint` returns more than one number.
    """
    points = as_samples("points", points, at_least=1)
    log_weights = log_weights_of(log_joint, proposal, points, key, num_draws, block_size)
    weighted = log_mean_weight(log_weights)
    error = jnp.std(log_weights, axis=-1, ddof=1) / jnp.sqrt(num_draws)
    return EvidenceBounds(jnp.mean(log_weights, axis=-1), error, weighted[0], weighted[1])
