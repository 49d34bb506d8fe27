# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The loop around an integrator without a Metropolis test, its step size and its metric."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from numpyro.infer.hmc_util import HMCAdaptState, build_adaptation_schedule, warmup_adapter

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.curvature import curvature_at
from numpyro_scores.infer._base import LangevinKernel, PotentialFn
from numpyro_scores.infer._metric import (
    check_inverse_mass_matrix,
    coordinates,
    given_metric,
    whiten,
)
from numpyro_scores.infer._trees import all_finite, select
from numpyro_scores.integrators import Integrator, IntegratorState, stationary_variance


class UnadjustedState(NamedTuple):
    """
    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values, a pytree.
    - **grad** - gradient of the potential energy at `z`, flat, in the coordinates of the metric,
      shape `(d,)`.
    - **memory** - what the integrator carries besides, there too: a momentum, a noise, or None.
    - **step_size** - the step size, shape `()`.
    - **variance_error** - relative error that this step makes of the stationary variance in the
      direction of the largest curvature, were the target Gaussian: 0.11 is 11% too large. NaN if
      the step size was given, since then no curvature is measured.
    - **adapt_state** - NumPyro's: `inverse_mass_matrix`, ...; None without a metric.
    - **diverging** - whether the steps of this draw left the finite numbers, and so were not made.
    - **num_grad_evals** - number of gradients of this draw.
    - **rng_key** - key of the next draw.
    """

    i: Array
    z: Any
    grad: Array
    memory: Any
    step_size: Array
    variance_error: Array
    adapt_state: HMCAdaptState | None
    diverging: Array
    num_grad_evals: Array
    rng_key: Array


class UnadjustedKernel(LangevinKernel):
    """
    `num_steps` steps of an integrator a draw, in the coordinates of a metric. A subclass names the
    arguments of a step besides the step size.
    """

    _shared_fields = ("i",)  # or the adaptation would be computed after warmup too

    def __init__(
        self,
        model: Callable | None,
        potential_fn: PotentialFn | None,
        *,
        integrator: Integrator,
        step_size: float | None,
        num_steps: int,
        inverse_mass_matrix: Any,
        adapt_mass_matrix: bool,
        dense_mass: bool,
        init_strategy: Callable,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        if step_size is not None:
            check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        self._integrator: Any = integrator
        self._step_size = step_size
        self._num_steps = num_steps
        self._inverse_mass_matrix = check_inverse_mass_matrix(inverse_mass_matrix, dense_mass)
        self._adapt_mass_matrix = adapt_mass_matrix
        self._dense_mass = dense_mass
        self._num_warmup = 0

    @abstractmethod
    def _dynamics(self, step_size: Array) -> dict[str, Array | float]:
        """Arguments of the integrator's step besides the step size."""

    def _adapter(self) -> tuple[Callable, Callable]:
        return warmup_adapter(
            self._num_warmup,
            adapt_step_size=False,
            adapt_mass_matrix=self._adapt_mass_matrix,
            dense_mass=self._dense_mass,
        )

    def _in_coordinates(self, z, adapt_state, model_args, model_kwargs):
        """`z` in the coordinates of the metric, the gradient there, and the way back."""
        x, unravel, potential = self._flat(z, model_args, model_kwargs)
        root = None if adapt_state is None else adapt_state.mass_matrix_sqrt_inv
        v, position = coordinates(root, x)
        gradient = jax.grad(potential)
        return v, lambda v: whiten(root, gradient(position(v))), lambda v: unravel(position(v))

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        self._num_warmup = num_warmup
        x, _, potential = self._flat(z, model_args, model_kwargs)
        key_noise, key_curvature, key_adapt, rng_key = random.split(rng_key, 4)
        adapt_state = None
        if self._adapt_mass_matrix or self._inverse_mass_matrix is not None:
            inverse_mass_matrix = given_metric(self._inverse_mass_matrix, x)
            init_adapter, _ = self._adapter()
            adapt_state = init_adapter(
                (z,), key_adapt, inverse_mass_matrix=inverse_mass_matrix, mass_matrix_size=x.size
            )
        v, gradient, _ = self._in_coordinates(z, adapt_state, model_args, model_kwargs)
        start = self._integrator.init(v, random.normal(key_noise, x.shape, x.dtype), gradient)
        if self._step_size is None:
            step_size, variance_error = self._safe_step(key_curvature, v, gradient)
        else:
            step_size, variance_error = self._step_size, jnp.nan
        state = UnadjustedState(
            i=jnp.array(0),
            z=z,
            grad=start.grad,
            memory=start.memory,
            step_size=jnp.asarray(step_size, x.dtype),
            variance_error=jnp.asarray(variance_error, x.dtype),
            adapt_state=adapt_state,
            diverging=jnp.array(False),
            num_grad_evals=jnp.array(0),
            rng_key=rng_key,
        )
        return state, (potential(x), start.grad)

    def _safe_step(self, key, v, gradient):
        """The step that the curvature at `v` asks for, and the error that it makes."""
        curvature = curvature_at(gradient, v, key)
        # A straight potential bounds no step, and none is wrong.
        bends = (curvature > 0) & jnp.isfinite(curvature)
        curvature = jnp.where(bends, curvature, 1.0)
        step_size = self._integrator.safe_step(curvature)
        dynamics = self._dynamics(step_size)
        variance = stationary_variance(self._integrator, step_size, curvature, **dynamics)
        return jnp.where(bends, step_size, 1.0), jnp.where(bends, variance * curvature - 1, 0.0)

    def _sample_chain(self, state, model_args, model_kwargs):
        v, gradient, position = self._in_coordinates(
            state.z, state.adapt_state, model_args, model_kwargs
        )
        rng_key, key_steps, key_curvature = random.split(state.rng_key, 3)
        dynamics = self._dynamics(state.step_size)

        def step(current, key):
            noise = random.normal(key, (self._integrator.num_noises, *v.shape), v.dtype)
            new = self._integrator.step(current, noise, gradient, state.step_size, **dynamics)
            return new, None

        start = IntegratorState(v, state.grad, state.memory)
        final, _ = lax.scan(step, start, random.split(key_steps, self._num_steps))
        # What is not finite once stays so: one look at the end sees every step.
        finite = all_finite(final)
        final = select(finite, final, start)
        state = state._replace(
            i=state.i + 1,
            z=position(final.x),
            grad=final.grad,
            memory=final.memory,
            diverging=~finite,
            num_grad_evals=jnp.array(self._num_steps * self._integrator.num_grad_evals),
            rng_key=rng_key,
        )
        return self._adapted(state, key_curvature, model_args, model_kwargs)

    def _adapted(self, state, key, model_args, model_kwargs):
        """
        The state after what warmup does: learn the metric and, at the ends of NumPyro's windows,
        measure the step anew.
        """
        if not self._num_warmup or not (self._adapt_mass_matrix or self._step_size is None):
            return state

        def learn():
            update = self._adapter()[1]
            return update(state.i - 1, jnp.zeros(()), (state.z,), state.adapt_state)

        def at_window_end(state):
            v, gradient, _ = self._in_coordinates(
                state.z, state.adapt_state, model_args, model_kwargs
            )
            state = state._replace(grad=gradient(v))
            if self._step_size is None:
                step_size, variance_error = self._safe_step(key, v, gradient)
                state = state._replace(
                    step_size=step_size.astype(v.dtype),
                    variance_error=variance_error.astype(v.dtype),
                )
            return state

        if self._adapt_mass_matrix:
            in_warmup = state.i <= self._num_warmup
            adapt_state = lax.cond(in_warmup, learn, lambda: state.adapt_state)
            state = state._replace(adapt_state=adapt_state)
        ends = np.array([end + 1 for _, end in build_adaptation_schedule(self._num_warmup)])
        return lax.cond(jnp.any(state.i == ends), at_window_end, lambda state: state, state)

    def refresh(self, state, model_args, model_kwargs):
        """The gradient at the current point for other arguments of the model, or another metric."""
        v, gradient, _ = self._in_coordinates(state.z, state.adapt_state, model_args, model_kwargs)
        return state._replace(grad=gradient(v))

    def get_diagnostics_str(self, state):
        text = f"step size {state.step_size:.2e}"
        return text if self._step_size else f"{text}. variance {state.variance_error:+.0%}"
