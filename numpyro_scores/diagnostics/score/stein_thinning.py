# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The few draws of a chain that stand best for its target."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from numpyro_scores._callables import Score
from numpyro_scores._validation import check_count
from numpyro_scores.diagnostics import _kernels
from numpyro_scores.diagnostics._samples import as_samples
from numpyro_scores.diagnostics.score.kernel_stein import scores_at, stein_diagonal, stein_kernel


class SteinThinning(NamedTuple):
    """
    What :func:`stein_thinning` returns, both of shape `(num_points,)`.

    - **indices** - of the chosen draws, in the order of the choice; a draw may come again.
    - **discrepancy** - kernel Stein discrepancy of the first 1, 2, ... of them.
    """

    indices: Array
    discrepancy: Array


def stein_thinning(
    x: Array,
    score: Score,
    num_points: int,
    *,
    lengthscale: float | None = None,
    block_size: int = _kernels.BLOCK_SIZE,
) -> SteinThinning:
    r"""
    Choose draws one after the other, each such that the kernel Stein discrepancy of those chosen is
    least (Riabiz et al. 2022, "Optimal thinning of MCMC output", algorithm 1),

    .. math:: \pi_t = \arg\min_i\; \tfrac12 k_p(x_i, x_i) + \sum_{s < t} k_p(x_{\pi_s}, x_i),

    with the kernel of :func:`kernel_stein_discrepancy`. It drops what was drawn before the chain
    was stationary and makes up for a bias of the chain, but not for modes that it never met. Time
    grows as `n * d * num_points`, memory as `n * d`.

    :param x: draws of one or more chains, shape `(n, *event_shape)`, in the unconstrained space.
    :param score: the score of one point, an energy, or a distribution.
    :param num_points: number of draws to choose.
    :param lengthscale: of the kernel, in units of `x`; the median distance unless given.
    :param block_size: scores evaluated at a time.
    :raises ValueError: if draws are too few or not finite, or an argument is out of its range.
    """
    check_count("num_points", num_points)
    check_count("block_size", block_size)
    x = as_samples("x", x)
    flat, scores = scores_at(score, x, block_size)
    return _thin(flat, scores, _kernels.lengthscale_or_median(lengthscale, flat), num_points)


@partial(jax.jit, static_argnums=3)
def _thin(x, scores, lengthscale, num_points):
    def choose(objective, _):
        i = jnp.argmin(objective)
        values = stein_kernel(x[i], scores[i], x, scores, lengthscale)
        return objective + values, (i, objective[i])

    start = stein_diagonal(scores, lengthscale) / 2
    _, (indices, gains) = lax.scan(choose, start, length=num_points)
    # The double sum over those chosen grows by twice the least objective.
    squares = jnp.maximum(2 * jnp.cumsum(gains), 0)
    return SteinThinning(indices, jnp.sqrt(squares) / jnp.arange(1, num_points + 1))
