# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Adaptation in warmup: NumPyro's, except for what a dense metric is made of."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from numpyro.infer.hmc_util import HMCAdaptState, build_adaptation_schedule, warmup_adapter


def metric_adapter(
    num_warmup: int, dense_mass: bool | list[tuple[str, ...]], **settings: Any
) -> tuple[Callable, Callable]:
    """
    The `init` and `update` of NumPyro's `warmup_adapter`. A dense metric is :func:`shrunk`.

    :param num_warmup: number of draws.
    :param dense_mass: whether the metric is dense, or its dense blocks.
    :param settings: of `warmup_adapter`.
    """
    init, update = warmup_adapter(num_warmup, dense_mass=dense_mass, **settings)
    if not (dense_mass and settings["adapt_mass_matrix"]):
        return init, update
    # The metric is learned in all windows but the first and the last.
    ends = np.array([end for _, end in build_adaptation_schedule(num_warmup)[1:-1]], int)

    def update_dense(t: Array, accept_prob: Array, z_info: Any, state: HMCAdaptState):
        new = update(t, accept_prob, z_info, state)

        def learned():
            return with_inverse_metric(new, _shrunk(new.inverse_mass_matrix, state.mm_state))

        # All chains end a window with the same draw, and no other draw pays for it.
        return lax.cond(jnp.any(t == ends), learned, lambda: new)

    return init, update_dense


def _shrunk(covariance: Any, before: Any) -> Any:
    """
    The dense covariance, or all those that are dense of a dict by block.

    :param before: what NumPyro had counted before the last draw.
    """
    if isinstance(covariance, dict):
        return {names: _shrunk(block, before[names]) for names, block in covariance.items()}
    if covariance.ndim == 1:
        return covariance
    _, _, num_before = before
    return shrunk(covariance, num_before + 1)


def shrunk(covariance: Array, num_draws: Array) -> Array:
    r"""
    The covariance `C` of few draws, :math:`(n C + d \operatorname{diag} C) / (n + d)`, as if the
    `d` entries had also been seen `d` times without correlation. Fewer draws than dimensions leave
    directions in which they have no variance at all; a metric that believed this would forbid the
    very moves from which the next window could learn better.
    """
    d = len(covariance)
    diagonal = jnp.diag(jnp.diag(covariance))
    return (num_draws * covariance + d * diagonal) / (num_draws + d)


def with_inverse_metric(state: HMCAdaptState, inverse_metric: Any) -> HMCAdaptState:
    if isinstance(inverse_metric, dict):
        roots = {names: _roots(block) for names, block in inverse_metric.items()}
        root, root_inv = ({names: pair[k] for names, pair in roots.items()} for k in (0, 1))
    else:
        root, root_inv = _roots(inverse_metric)
    return state._replace(
        inverse_mass_matrix=inverse_metric,
        mass_matrix_sqrt=root,
        mass_matrix_sqrt_inv=root_inv,
    )


def _roots(inverse_metric: Array) -> tuple[Array, Array]:
    """Of the metric, and of its inverse."""
    if inverse_metric.ndim == 1:
        root = jnp.sqrt(inverse_metric)
        return 1 / root, root
    root = jnp.linalg.cholesky(inverse_metric).T
    return solve_triangular(root, jnp.eye(len(root), dtype=root.dtype)), root
