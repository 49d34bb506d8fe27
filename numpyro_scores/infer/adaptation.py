# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The phases of a Metropolis kernel: acceptance, its means, and what warmup adapts."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from numpyro.infer.hmc_util import HMCAdaptState, build_adaptation_schedule, warmup_adapter

from numpyro_scores.infer.langevin.metric import (
    Given,
    Setting,
    check_inverse_mass_matrix,
    checked_metric,
    given_metric,
)
from numpyro_scores.infer.low_rank import LowRank, low_rank_adapter
from numpyro_scores.infer.trees import select

PARTICLE_RATE = 2.0  # of the logarithm of a step size; the acceptance falls by 0.3 a unit of it


def check_target(target_accept_prob: float) -> None:
    if not 0 < target_accept_prob < 1:
        raise ValueError(f"target_accept_prob must be in (0, 1), got {target_accept_prob!r}.")


def accept_or_stay(
    uniform: Array,
    log_ratio: Array,
    proposal: Any,
    current: Any,
    is_known: Array | bool = True,
) -> tuple[Any, Array, Array]:
    """
    The next point by a number that is uniform in [0, 1), the acceptance probability, and whether
    the proposal was not finite.

    :param is_known: whether the ratio can be relied on; the same of the way back.
    """
    # Not finite: the proposal left the support or the finite numbers, in its potential energy or
    # its gradient. Reject, an energy of -inf too: it would never be left.
    finite = jnp.isfinite(log_ratio)
    accept_prob = jnp.where(finite & is_known, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    return select(uniform < accept_prob, proposal, current), accept_prob, ~finite


def counted(state: Any, num_warmup: int, **figures: Array) -> Any:
    """
    The state with one draw more: the count `i`, and of each figure its value and its mean over the
    draws of this phase, warmup or sampling.

    :param figures: by name, such as `accept_prob` of the fields `accept_prob`, `mean_accept_prob`.
    """
    i = state.i + 1
    n = jnp.where(i <= num_warmup, i, i - num_warmup)
    for name, value in figures.items():
        mean = getattr(state, f"mean_{name}")
        state = state._replace(**{name: value, f"mean_{name}": mean + (value - mean) / n})
    return state._replace(i=i)


def after_draw(state: Any, num_warmup: int, adapt: Callable[[], Any], **figures: Array) -> Any:
    """
    The state with what each draw of a Metropolis kernel moves on: what is :func:`counted`, and the
    `adapt_state`.

    :param adapt: the next `adapt_state`, asked for in warmup alone.
    """
    state = counted(state, num_warmup, **figures)
    if not num_warmup:  # a condition that never holds would still copy what it returns
        return state
    adapt_state = lax.cond(state.i <= num_warmup, adapt, lambda: state.adapt_state)
    return state._replace(adapt_state=adapt_state)


def corrected_step_size(step_size: Array, accept_prob: Array, target: float) -> Array:
    """Of many particles, after a step of all whose mean acceptance probability this was."""
    return step_size * jnp.exp(PARTICLE_RATE * (accept_prob - target))


class Adaptation(NamedTuple):
    """
    What warmup adapts, by NumPyro's scheme.

    - **step_size**, **mass_matrix** - whether it adapts these.
    - **dense_mass** - whether the metric is dense, its dense blocks, or one of low rank.
    - **inverse_mass_matrix** - where the metric starts, as the caller gave it.
    - **target_accept_prob** - what the step size aims at.
    """

    step_size: bool
    mass_matrix: bool
    dense_mass: Setting
    inverse_mass_matrix: Given
    target_accept_prob: float

    @classmethod
    def of(
        cls,
        step_size: bool,
        mass_matrix: bool,
        dense_mass: Any = False,
        inverse_mass_matrix: Any = None,
        metric: Any = None,
        target_accept_prob: float = 0.5,
    ) -> "Adaptation":
        """
        By the arguments of a kernel.

        :raises ValueError: if the metric is none, or the target not in (0, 1).
        """
        check_target(target_accept_prob)
        dense_mass = checked_metric(metric, dense_mass, inverse_mass_matrix)
        given = check_inverse_mass_matrix(inverse_mass_matrix, dense_mass)
        return cls(step_size, mass_matrix, dense_mass, given, target_accept_prob)

    def adapter(self, num_warmup: int) -> tuple[Callable, Callable]:
        """
        The `init` and `update` of NumPyro's `warmup_adapter`. A dense metric is a
        :func:`shrunk_covariance`.
        """
        settings = {
            "adapt_step_size": self.step_size,
            "adapt_mass_matrix": self.mass_matrix,
            "target_accept_prob": self.target_accept_prob,
        }
        if isinstance(self.dense_mass, LowRank):
            return low_rank_adapter(num_warmup, self.dense_mass.rank, **settings)
        init, update = warmup_adapter(num_warmup, dense_mass=self.dense_mass, **settings)
        if not (self.dense_mass and self.mass_matrix):
            return init, update
        # The metric is learned in all windows but the first and the last.
        ends = np.array([end for _, end in build_adaptation_schedule(num_warmup)[1:-1]], int)

        def update_dense(t: Array, accept_prob: Array, z_info: Any, state: HMCAdaptState):
            new = update(t, accept_prob, z_info, state)

            def learned():
                return with_inverse_metric(
                    new, _shrunk_metric(new.inverse_mass_matrix, state.mm_state)
                )

            # All chains end a window with the same draw, and no other draw pays for it.
            return lax.cond(jnp.any(t == ends), learned, lambda: new)

        return init, update_dense

    def start(self, z: Any, key: Array, num_warmup: int) -> Callable[..., HMCAdaptState]:
        """
        The state before the first draw, from a step size; by default 1.

        :raises ValueError: if the given metric is not of values like `z`.
        """
        init, _ = self.adapter(num_warmup)
        given = given_metric(self.inverse_mass_matrix, self.dense_mass, z)
        return partial(init, (z,), key, inverse_mass_matrix=given)

    def adapted(self, state: Any, num_warmup: int, z: Any, accept_prob: Array) -> HMCAdaptState:
        """The next `adapt_state`, after a draw of warmup that ended at `z`."""
        _, update = self.adapter(num_warmup)
        z_info = (z, state.z_grad) if isinstance(self.dense_mass, LowRank) else (z,)
        return update(state.i, accept_prob, z_info, state.adapt_state)

    def after_draw(self, state: Any, num_warmup: int, z: Any, **figures: Array) -> Any:
        """The state after a draw that ended at `z`: see the function of this name."""

        def adapt():
            return self.adapted(state, num_warmup, z, figures["accept_prob"])

        return after_draw(state, num_warmup, adapt, **figures)


def _shrunk_metric(covariance: Any, before: Any) -> Any:
    """
    The dense covariance, or all those that are dense of a dict by block.

    :param before: what NumPyro had counted before the last draw.
    """
    if isinstance(covariance, dict):
        return {names: _shrunk_metric(block, before[names]) for names, block in covariance.items()}
    if covariance.ndim == 1:
        return covariance
    _, _, num_before = before
    return shrunk_covariance(covariance, num_before + 1)


def shrunk_covariance(covariance: Array, num_draws: Array) -> Array:
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
