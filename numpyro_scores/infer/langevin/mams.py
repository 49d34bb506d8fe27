# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Metropolis-adjusted microcanonical sampler."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree

from numpyro_scores._validation import check_positive
from numpyro_scores.infer.langevin.adjusted import AdjustedKernel
from numpyro_scores.infer.langevin.base import PotentialFn
from numpyro_scores.infer.langevin.isokinetic import check_can_turn, isokinetic_step
from numpyro_scores.infer.langevin.targets import Point, Root, Target, Transition
from numpyro_scores.infer.langevin.trajectories import accept_end
from numpyro_scores.infer.settings import takes_settings_of
from numpyro_scores.integrators.isokinetic import LEAPFROG, random_direction


def step(
    key: Array,
    state: Point,
    target: Target,
    step_size: Array,
    root: Root = None,
    num_steps: Array | int = 10,
) -> Transition:
    r"""
    One trajectory from a point of :func:`~numpyro_scores.infer.langevin.targets.init`: leaves the
    target as it is.

    :param step_size: of a coordinate: a step is :math:`\sqrt d` times as long.
    :param root: of the inverse metric, by which steps are scaled.
    :param num_steps: which must not depend on the point.
    """
    key_direction, key_accept = random.split(key)

    def move(_, carry):
        point, direction, kinetic, error = carry
        new, direction, gain, new_error = isokinetic_step(
            point, direction, target, step_size, root, LEAPFROG, is_energy_asked=False
        )
        return new, direction, kinetic + gain, error + new_error

    zero = jnp.zeros_like(state.energy)
    direction = random_direction(key_direction, state.x.shape, state.x.dtype)
    end, _, kinetic, integral_error = lax.fori_loop(
        0, num_steps, move, (state, direction, zero, zero)
    )
    return accept_end(key_accept, state, end, target, kinetic, integral_error, num_steps)


class MAMS(AdjustedKernel):
    r"""
    The Metropolis-adjusted microcanonical sampler (Robnik, Cohn-Gordon & Seljak 2025, arXiv
    2503.01707): from a fresh direction follow isokinetic dynamics, whose speed is constant, for a
    random number of leapfrog steps, and accept the end with probability
    :math:`\min(1, e^{-\Delta})`, where

    .. math:: \Delta = U(x_L) - U(x_0) + (d - 1) \sum_k \ln (\cosh \delta_k + a_k \sinh \delta_k)

    is the error of the energy (see :func:`numpyro_scores.integrators.turned`). Exact for the
    target. One trajectory is one draw. Step size and metric are adapted during warmup as in
    :class:`~numpyro_scores.MALA`.

    The speed does not depend on the energy: no momentum has to be lost or gained on the way between
    places of high and low density.

    :param model: a NumPyro model with continuous latent sites, of two numbers at least.
    :param potential_fn: a potential energy, in place of a model.
    :param step_size: the way of a step is :math:`\sqrt d` times as long, so that it compares with
        the step size of `MALT` and of NumPyro's `HMC`; in the metric. Where adaptation starts, by
        default from the largest curvature at the start.
    :param trajectory_length: mean length of a trajectory, likewise over :math:`\sqrt d`. The number
        of steps is uniform from 1 to twice the mean. With :math:`\pi / 2`, the default, a draw of
        a Gaussian in the metric in many dimensions does not depend on the last one: the mean of
        :math:`\cos T` over lengths `T` from 0 to :math:`\pi` is 0. Give a longer one where the
        target is much wider than the metric says.
    :param max_num_steps: largest mean number of steps; a step size that needs more makes
        trajectories shorter.
    :param target_accept_prob: what warmup adapts the step size to: 0.9, as the paper has it.
    :param segment_integral: how the sites of a :class:`~numpyro_scores.ScoreDistribution` enter the
        energy: as in :class:`~numpyro_scores.MALT`.
    :param settings: `adapt_step_size`, `adapt_mass_matrix`, `metric`, `dense_mass`,
        `inverse_mass_matrix` and `init_strategy`, as of :class:`~numpyro_scores.MALA`.
    :raises ValueError: if an argument is out of its range; at `init`, if the model has one number
        only, in which there is nowhere to turn.
    """

    @takes_settings_of(AdjustedKernel, but=["num_steps"])
    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        trajectory_length: float = math.pi / 2,
        max_num_steps: int = 512,
        target_accept_prob: float = 0.9,
        **settings: Any,
    ):
        super().__init__(
            model,
            potential_fn,
            num_steps=max_num_steps,
            target_accept_prob=target_accept_prob,
            **settings,
        )
        check_positive("trajectory_length", trajectory_length)
        self._trajectory_length = trajectory_length

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        check_can_turn("MAMS", ravel_pytree(z)[0])
        return super()._init_chain(rng_key, z, num_warmup, model_args, model_kwargs)

    def _step(self, key, start, target, step_size, root):
        key, key_length = random.split(key)
        mean = jnp.clip(jnp.round(self._trajectory_length / step_size), 1, self._num_steps)
        # Uniform from 1 to 2 mean - 1.
        num_steps = random.randint(key_length, (), 1, 2 * mean.astype(int))
        return step(key, start, target, step_size, root, num_steps)
