# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The warmup of MCLMC: the metric, then the length of decoherence; the step size all the way."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc_util import build_adaptation_schedule

from numpyro_scores.infer.adaptation import Adaptation
from numpyro_scores.infer.langevin.decoherence import Recorder
from numpyro_scores.infer.langevin.energy_error import Calibration, Tuning
from numpyro_scores.infer.langevin.stiffness import first_curvature
from numpyro_scores.infer.langevin.targets import Root, flat_root
from numpyro_scores.integrators.isokinetic import random_direction

Potential = Callable[[Array], Array]

# Shares of warmup: the metric is learned in the first, the autocorrelation is measured until the
# second, the rest is for the step size.
METRIC_SHARE, AUTOCORRELATION_SHARE = 0.6, 0.9


@dataclass(frozen=True)
class Warmup:
    """
    - **calibration** - of the integrator, for the bias that is asked for.
    - **adaptation** - of the metric.
    - **step_size**, **decoherence_length** - as given, or None if warmup finds them.
    - **num_steps** - of a draw.
    - **num_draws** - of the warmup.
    """

    calibration: Calibration
    adaptation: Adaptation
    step_size: float | None
    decoherence_length: float | None
    num_steps: int
    num_draws: int = 0

    @property
    def recorder(self) -> Recorder:
        """Of the draws that tell the autocorrelation."""
        shares = METRIC_SHARE, AUTOCORRELATION_SHARE
        return Recorder(*(int(share * self.num_draws) for share in shares))

    @property
    def num_metric(self) -> int:
        """Draws by which the metric is learned."""
        return int(METRIC_SHARE * self.num_draws)

    def first_step_size(self, key: Array, x: Array, potential: Potential, root: Root) -> Array:
        """What is right for a Gaussian of the largest curvature at this point."""
        if self.step_size is not None:
            return jnp.asarray(self.step_size, x.dtype)
        curvature = first_curvature(key, potential, x, root)
        return (self.calibration.step_size / jnp.sqrt(curvature)).astype(x.dtype)

    def first_length(self, step_size: Array) -> Array:
        """The standard deviation of a Gaussian for which this step size is right."""
        if self.decoherence_length is not None:
            return jnp.asarray(self.decoherence_length, step_size.dtype)
        return step_size / self.calibration.step_size

    def after(self, state: Any, energy_variance: Array, potential: Potential) -> Any:
        """
        The state with what a draw of warmup teaches.

        :param state: an `MCLMCState` after the draw, its number not counted on yet.
        """
        if state.tuning is not None:
            wanted = self.calibration.energy_variance
            tuning, step_size = state.tuning.after(
                state.step_size, energy_variance, ~state.diverging, wanted
            )
            state = state._replace(tuning=tuning, step_size=step_size)
        if self.adaptation.mass_matrix and self.num_metric:
            ends = [end for _, end in build_adaptation_schedule(self.num_metric)[1:-1]]
            _, update = self.adaptation.adapter(self.num_metric)
            adapt_state = lax.cond(
                state.i < self.num_metric,
                lambda: update(state.i, jnp.zeros(()), (state.z, state.z_grad), state.adapt_state),
                lambda: state.adapt_state,
            )
            state = lax.cond(
                jnp.any(state.i == np.array(ends, int)),
                lambda state: self._in_new_metric(state, potential),
                lambda state: state,
                state._replace(adapt_state=adapt_state),
            )
        return state if self.decoherence_length is not None else self._with_length(state)

    def _in_new_metric(self, state: Any, potential: Potential) -> Any:
        """What was learnt of the step size is of the metric before."""
        rng_key, key_curvature, key_direction = random.split(state.rng_key, 3)
        x, _ = ravel_pytree(state.z)
        direction = random_direction(key_direction, x.shape, x.dtype)
        state = state._replace(direction=direction, rng_key=rng_key)
        if state.tuning is None:
            return state
        root = flat_root(state.adapt_state.mass_matrix_sqrt_inv, state.z)
        return state._replace(
            step_size=self.first_step_size(key_curvature, x, potential, root),
            tuning=Tuning.start(state.step_size),
        )

    def _with_length(self, state: Any) -> Any:
        """The length on which the direction is forgotten, once the draws tell it."""
        recorder, first = self.recorder, self.first_length(state.step_size)
        if state.recent is None:
            return state._replace(decoherence_length=first)
        recent = recorder.after(state.recent, state.i, ravel_pytree(state.z)[0])
        between_draws = self.num_steps * state.step_size
        length = lax.cond(
            state.i == recorder.last - 1,
            lambda: jnp.maximum(first, recorder.length(recent, between_draws)),
            lambda: jnp.where(state.i < recorder.last, first, state.decoherence_length),
        )
        return state._replace(recent=recent, decoherence_length=length)
