# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Metropolis-adjusted microcanonical sampler."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc_util import HMCAdaptState, dual_averaging

from numpyro_scores._validation import check_positive
from numpyro_scores.infer.adaptation import after_draw
from numpyro_scores.infer.langevin.adjusted import AdjustedKernel, AdjustedState
from numpyro_scores.infer.langevin.base import PotentialFn
from numpyro_scores.infer.langevin.isokinetic import check_can_turn, isokinetic_step, set_out
from numpyro_scores.infer.langevin.targets import Point, Root, Target, Transition
from numpyro_scores.infer.langevin.trajectories import accept_end
from numpyro_scores.infer.langevin.trajectory_length import (
    MEAN_LENGTH,
    AutocorrelationLength,
    Look,
    TrajectoryLength,
    UTurnLength,
    random_num_steps,
)
from numpyro_scores.infer.settings import takes_settings_of
from numpyro_scores.integrators.isokinetic import LEAPFROG, random_direction

# Shares of a warmup that finds the length of trajectories: until the first the metric is learned,
# until the second the length, then the step size that goes with it.
METRIC_SHARE, LENGTH_SHARE = 0.6, 0.8


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
        course, kinetic, error = carry
        new, gain, new_error = isokinetic_step(
            course, target, step_size, root, LEAPFROG, is_energy_asked=False
        )
        return new, kinetic + gain, error + new_error

    zero = jnp.zeros_like(state.energy)
    direction = random_direction(key_direction, state.x.shape, state.x.dtype)
    start = set_out(state, direction, root)
    end, kinetic, integral_error = lax.fori_loop(0, num_steps, move, (start, zero, zero))
    return accept_end(key_accept, state, end.point, target, kinetic, integral_error, num_steps)


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
    :param trajectory_length: mean length of a trajectory, likewise over :math:`\sqrt d`; lengths
        are uniform from half of it to one and a half. Of a Gaussian in the metric, in many
        dimensions, a coordinate has after a length `T` the correlation :math:`\cos T` with what it
        was, and its square :math:`\cos^2 T`. With 1.4, the default, the means of both are near
        0.17, and of the worse of the two there are most effective samples a gradient. Where the
        target is much wider than the metric says, :class:`UTurnLength` finds a longer one, and
        :class:`AutocorrelationLength` one by the paper's rule: the metric is then learned in the
        first six tenths of warmup, the length in the next two, and in the last two the step size.
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
        trajectory_length: TrajectoryLength = MEAN_LENGTH,
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
        self._tuner: UTurnLength | AutocorrelationLength | None = None
        if isinstance(trajectory_length, UTurnLength | AutocorrelationLength):
            self._tuner, trajectory_length = trajectory_length, trajectory_length.first
        check_positive("trajectory_length", trajectory_length)
        self._trajectory_length = trajectory_length

    @property
    def _looks(self) -> range:
        """Draws of warmup by which the length is found: behind those for the metric."""
        return range(*(int(share * self._num_warmup) for share in (METRIC_SHARE, LENGTH_SHARE)))

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        x, _ = ravel_pytree(z)
        check_can_turn("MAMS", x)
        self._num_warmup = num_warmup
        looks = None if self._tuner is None else self._tuner.start(x, len(self._looks))
        # Where the length is found too, warmup is for the metric in its first part alone.
        num_metric = num_warmup if looks is None else self._looks.start
        state, rest = super()._init_chain(rng_key, z, num_metric, model_args, model_kwargs)
        self._num_warmup = num_warmup
        length = jnp.asarray(self._trajectory_length, x.dtype)
        return state._replace(trajectory_length=length, looks=looks), rest

    def _step(self, key, start, target, state, root):
        key, key_length, _ = random.split(key, 3)
        mean = jnp.clip(state.trajectory_length / state.step_size, 1, self._num_steps)
        num_steps = random_num_steps(random.uniform(key_length, dtype=mean.dtype), mean)
        return step(key, start, target, state.step_size, root, num_steps)

    def _learned(self, key, state, end, target, root, **figures):
        tuner = self._tuner
        if tuner is None or state.looks is None:
            return super()._learned(key, state, end, target, root, **figures)
        *_, key = random.split(key, 3)
        looks, accept_prob = self._looks, figures["accept_prob"]
        look = Look(state.i - looks.start, key, end, target, state.step_size, root, self._num_steps)
        state = lax.cond(
            (state.i >= looks.start) & (state.i < looks.stop),
            lambda: self._after_look(state, look, tuner),
            lambda: state,
        )

        def adapt():
            branches = (
                lambda: self._adaptation.adapted(state, looks.start, state.z, accept_prob),
                lambda: state.adapt_state,
                lambda: self._settled(state, accept_prob),
            )
            return lax.switch(jnp.digitize(state.i, np.array([looks.start, looks.stop])), branches)

        return after_draw(state, self._num_warmup, adapt, **figures)

    def _after_look(self, state: AdjustedState, look: Look, tuner: Any) -> AdjustedState:
        """With the length, after the last look, and an adaptation of the step size that begins."""
        adapt_state = state.adapt_state
        kept = tuner.after(state.looks, look)
        start, _ = dual_averaging()
        length, ss_state = lax.cond(
            look.number == len(self._looks) - 1,
            lambda: (tuner.length(kept), start(jnp.log(state.step_size))),
            lambda: (state.trajectory_length, adapt_state.ss_state),
        )
        return state._replace(
            looks=kept,
            trajectory_length=length,
            adapt_state=adapt_state._replace(ss_state=ss_state),
        )

    def _settled(self, state: AdjustedState, accept_prob: Array) -> HMCAdaptState:
        """The step size for trajectories of the length that was found."""
        adapt_state = state.adapt_state
        if not self._adaptation.step_size:
            return adapt_state
        _, update = dual_averaging()
        ss_state = update(self._adaptation.target_accept_prob - accept_prob, adapt_state.ss_state)
        log_now, log_mean, *_ = ss_state
        is_last = state.i == self._num_warmup - 1
        step_size = jnp.exp(jnp.where(is_last, log_mean, log_now))
        return adapt_state._replace(step_size=step_size, ss_state=ss_state)
