# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The likelihood of a latent-variable model, by importance sampling."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, random

from numpyro_scores._callables import as_pytree
from numpyro_scores._compile import compiled
from numpyro_scores._resampling import log_mean_exp
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics._samples import as_samples, check_at_least_two, mapped


class ImportanceEstimate(NamedTuple):
    """
    What :func:`importance_log_likelihood` and :func:`log_mean_weight` return, one number for each
    point.

    - **log_likelihood** - in nats.
    - **standard_error** - of each, by the spread of the weights. It says nothing of what the
      proposal never reached: the estimate is then too low and the error small.
    - **effective_sample_size** - number of draws as good as those made, from 1 to `num_draws`.
    """

    log_likelihood: Array
    standard_error: Array
    effective_sample_size: Array


def importance_log_likelihood(
    log_joint: Callable[[Array, Array], Array],
    proposal: Callable[[Array], Any],
    points: Array,
    *,
    key: Array,
    num_draws: int = 1_000,
    block_size: int = 16,
) -> ImportanceEstimate:
    r"""
    :math:`\log p(y) = \log E_{z \sim q(z | y)}[p(y, z) / q(z | y)]` of each point, from draws of a
    proposal that is wider than the posterior. The estimate is too low on average, by about half the
    square of its standard error.

    :param log_joint: :math:`\log p(y, z)`, `(z, y) -> ()`.
    :param proposal: a NumPyro distribution of `z` for one point `y`; the entries of a batch are
        independent parts of one `z`.
    :param points: shape `(n, *event_shape)`.
    :param key: key of the draws.
    :param num_draws: number of draws for each point, at least 2.
    :param block_size: points evaluated at a time.
    :raises ValueError: if points are not finite, a number is not a positive integer, or
        `log_joint` returns more than one number.
    """
    points = as_samples("points", points, at_least=1)
    return log_mean_weight(log_weights_of(log_joint, proposal, points, key, num_draws, block_size))


def log_weights_of(
    log_joint: Any, proposal: Any, points: Array, key: Array, num_draws: int, block_size: int
) -> Array:
    r""":math:`\log p(y, z) - \log q(z | y)` of draws of the proposal, shape `(n, num_draws)`."""
    key = check_key("The estimate of a likelihood", key)
    check_at_least_two("num_draws", num_draws)
    check_count("block_size", block_size)
    pair = as_pytree("log_joint", log_joint), as_pytree("proposal", proposal)
    sizes = {"num_draws": num_draws, "block_size": block_size}
    return compiled(_log_weights, pair, points, key, **sizes)


def log_mean_weight(log_weights: Array) -> ImportanceEstimate:
    r"""
    :math:`\log \frac1m \sum_j w_j` of log weights, shape `(..., m)`, with its standard error
    :math:`\operatorname{sd}(w) / (\bar w \sqrt m)` (delta method) and effective sample size
    :math:`(\sum w)^2 / \sum w^2`.
    """
    m = jnp.shape(log_weights)[-1] if jnp.ndim(log_weights) else 0
    if m < 2:
        raise ValueError(f"log_weights needs at least 2 weights along its last axis, got {m}.")
    log_mean = log_mean_exp(log_weights, axis=-1)
    relative = jnp.exp(jnp.asarray(log_weights) - log_mean[..., None])
    error = jnp.std(relative, axis=-1, ddof=1) / jnp.sqrt(m)
    return ImportanceEstimate(log_mean, error, m / jnp.mean(relative**2, axis=-1))


def joint(q: Any) -> Any:
    """
    What a proposal returned, as the distribution of one `z`; raise unless it is a distribution.
    """
    if not isinstance(q, dist.Distribution):
        raise TypeError(
            "proposal must be a function of one point that returns a NumPyro distribution of z, "
            f"such as lambda y: dist.Normal(*encoder(y)), got {type(q).__name__}."
        )
    # A batch of independent entries, Normal(mean, scale) of vectors, has their product.
    return q.to_event(len(q.batch_shape))


def _log_weights(pair, points, key, *, num_draws, block_size):
    log_joint, proposal = pair

    def of_point(point_and_key):
        y, key = point_and_key
        q = joint(proposal(y))
        z = q.sample(key, (num_draws,))
        values = jax.vmap(lambda z: log_joint(z, y))(z)
        if values.shape != (num_draws,):
            raise ValueError(
                "log_joint must return one number for one z and one point, got shape "
                f"{values.shape[1:]} for z of shape {z.shape[1:]} and a point of shape {y.shape}: "
                "sum over the entries."
            )
        return values - q.log_prob(z)

    return mapped(of_point, (points, random.split(key, len(points))), block_size)
