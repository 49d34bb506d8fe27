# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Metropolis-adjusted Langevin trajectories."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._validation import check_positive
from numpyro_scores.infer.langevin.adjusted import AdjustedKernel
from numpyro_scores.infer.langevin.base import PotentialFn
from numpyro_scores.infer.langevin.targets import (
    Point,
    Root,
    Target,
    Transition,
    unwhiten,
    whiten,
)
from numpyro_scores.infer.langevin.trajectories import accept_end
from numpyro_scores.infer.settings import takes_settings_of
from numpyro_scores.infer.trees import scan_random
from numpyro_scores.integrators.underdamped import friction_flow


def step(
    key: Array,
    state: Point,
    target: Target,
    step_size: Array,
    root: Root = None,
    num_steps: int = 10,
    friction: float = 1.0,
) -> Transition:
    """
    One trajectory from a point of :func:`~numpyro_scores.infer.langevin.targets.init`: leaves the
    target as it is.

    :param root: of the inverse metric, by which steps are scaled.
    """
    key_momentum, key_steps, key_accept = random.split(key, 3)

    def draw(key, shape):
        return random.normal(key, (*shape, *state.x.shape), state.x.dtype)

    def move(carry, noise):
        point, momentum, work, error = carry
        momentum = friction_flow(momentum, noise, step_size, friction)
        momentum = momentum - step_size / 2 * whiten(root, point.grad)
        jump = step_size * unwhiten(root, momentum)
        new, new_error = target.leap(point, jump)
        momentum = momentum - step_size / 2 * whiten(root, new.grad)
        work = work + jnp.vdot(jump, point.grad + new.grad) / 2
        return (new, momentum, work, error + new_error), None

    zero = jnp.zeros_like(state.energy)
    carry = (state, draw(key_momentum, ()), zero, zero)
    (end, _, work, integral_error), _ = scan_random(move, draw, carry, key_steps, num_steps)
    # The kinetic energy that a leapfrog step gains is (|g'|^2 - |g|^2) delta^2 / 8, which is a
    # telescope, less the work against the gradients g by the trapezoidal rule.
    squares = [jnp.sum(whiten(root, point.grad) ** 2) for point in (state, end)]
    kinetic = step_size**2 / 8 * (squares[1] - squares[0]) - work
    return accept_end(key_accept, state, end, target, kinetic, integral_error, num_steps)


class MALT(AdjustedKernel):
    r"""
    Metropolis-adjusted Langevin trajectories (Riou-Durand & Vogrinc 2022, arXiv 2202.13230): from a
    fresh momentum make `num_steps` steps of underdamped Langevin dynamics
    (:class:`~numpyro_scores.OBABO`), and accept the whole trajectory with probability
    :math:`\min(1, e^{-\Delta})`, where

    .. math:: \Delta = \sum_k U(x_{k+1}) - U(x_k) + \tfrac12 |p'_k|^2 - \tfrac12 |p_k|^2

    is what its leapfrog steps, from :math:`(x_k, p_k)` to :math:`(x_{k+1}, p'_k)`, gain in energy;
    the friction in between leaves the law of the momentum as it is. Exact for the target. HMC is
    the limit without friction; with it no length of the trajectory leads back to where it began, so
    that `num_steps` needs no tuning. One trajectory is one draw. Step size and metric are adapted
    during warmup as in :class:`~numpyro_scores.MALA`.

    :param model: a NumPyro model with continuous latent sites.
    :param potential_fn: a potential energy, in place of a model.
    :param step_size: the time step :math:`\delta`, in the metric; where adaptation starts, by
        default from the largest curvature at the start. :math:`\delta^2 / 2` compares with the step
        size of `MALA`.
    :param num_steps: number of steps of a trajectory, each of one gradient.
    :param friction: :math:`\gamma`, per unit of time in the metric, where the target has unit scale
        once warmup is over. Critical is twice the root of a direction's curvature: 2 there, 1 in a
        direction that is twice as wide as the metric says. With 1, the default, the correlation
        with the start overshoots by at most 16% (:math:`e^{-\pi / \sqrt 3}`) at unit scale, and
        nothing up to that width moves slower than it must.
    :param target_accept_prob: what warmup adapts the step size to: by default that of NumPyro's
        `HMC`. 0.651, optimal on a Gaussian in high dimensions (section 3), makes the most of a
        gradient there, but its steps are too long for tails that are steeper than the middle.
    :param segment_integral: how the sites of a :class:`~numpyro_scores.ScoreDistribution` enter
        :math:`U(x_{k+1}) - U(x_k)`: by the integral of the score along the segment, which replaces
        their `log_prob` and costs 5 scores a step besides the one at its end. As in
        :class:`~numpyro_scores.MALA`; a trajectory is refused if the errors of its steps sum up to
        more than the tolerance.
    :param settings: `adapt_step_size`, `adapt_mass_matrix`, `metric`, `dense_mass`,
        `inverse_mass_matrix` and `init_strategy`, as of :class:`~numpyro_scores.MALA`.
    :raises ValueError: if an argument is out of its range; at `init`, if `inverse_mass_matrix` has
        another size than the model.
    """

    @takes_settings_of(AdjustedKernel)
    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        friction: float = 1.0,
        target_accept_prob: float = 0.8,
        **settings: Any,
    ):
        super().__init__(model, potential_fn, target_accept_prob=target_accept_prob, **settings)
        check_positive("friction", friction)
        self._friction = friction

    def _step(self, key, start, target, state, root):
        return step(key, start, target, state.step_size, root, self._num_steps, self._friction)
