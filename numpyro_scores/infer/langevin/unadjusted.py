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
from numpyro.infer.hmc_util import HMCAdaptState, build_adaptation_schedule
from numpyro.infer.initialization import init_to_uniform

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.curvature import NUM_ITERATIONS
from numpyro_scores.infer.adaptation import Adaptation
from numpyro_scores.infer.kernel import by_position
from numpyro_scores.infer.langevin.base import LangevinKernel, PotentialFn
from numpyro_scores.infer.langevin.stiffness import (
    Stiffness,
    safe_step,
    stiffness_at,
    stiffness_with,
)
from numpyro_scores.infer.langevin.targets import coordinates, flat_root, whiten
from numpyro_scores.infer.trees import all_finite, scan_random, select
from numpyro_scores.integrators import Gradient, Integrator, IntegratorState

# By how much the gradient may grow in a draw of warmup.
LARGEST_RISE = 10.0


class UnadjustedState(NamedTuple):
    """
    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values, a pytree.
    - **z_grad** - gradient of the potential energy at `z`, flat, in the coordinates of the metric,
      shape `(d,)`.
    - **memory** - what the integrator carries besides, there too: a momentum, a noise, or None.
    - **step_size** - the step size, shape `()`.
    - **variance_error** - relative error that this step makes of the stationary variance in the
      direction of the largest curvature, were the target Gaussian: 0.11 is 11% too large. None
      if the step size was given, since then no curvature is measured.
    - **stiffness** - what the step size follows in warmup; None if it was given.
    - **adapt_state** - NumPyro's: `inverse_mass_matrix`, ...; None without a metric.
    - **diverging** - whether the steps of this draw left the finite numbers, and so were not made.
    - **num_grad_evals** - number of gradients of this draw.
    - **rng_key** - key of the next draw.
    """

    i: Array
    z: Any
    z_grad: Array
    memory: Any
    step_size: Array
    variance_error: Array | None
    stiffness: Stiffness | None
    adapt_state: HMCAdaptState | None
    diverging: Array
    num_grad_evals: Array
    rng_key: Array

    __getitem__ = by_position

    @property
    def grad(self) -> Array:
        """The name of `z_grad` before."""
        return self.z_grad


def step(
    key: Array,
    state: IntegratorState,
    gradient: Gradient,
    integrator: Any,
    step_size: Array,
    num_steps: int = 1,
    **dynamics: Any,
) -> IntegratorState:
    """
    Steps of an integrator, from a state of its `init`.

    :param dynamics: other arguments of its step, such as a friction.
    """

    def draw(key, shape):
        return random.normal(key, (*shape, integrator.num_noises, *state.x.shape), state.x.dtype)

    def one(current, noise):
        return integrator.step(current, noise, gradient, step_size, **dynamics), None

    return scan_random(one, draw, state, key, num_steps)[0]


class UnadjustedKernel(LangevinKernel):
    """
    `num_steps` steps of an integrator a draw, in the coordinates of a metric. A subclass names the
    arguments of a step besides the step size.
    """

    _is_exact = False
    _shared_fields = ("i",)  # or the adaptation would be computed after warmup too

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        integrator: Integrator,
        step_size: float | None = None,
        num_steps: int = 10,
        inverse_mass_matrix: Any = None,
        adapt_mass_matrix: bool = False,
        dense_mass: bool | list = False,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        if step_size is not None:
            check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        self._integrator: Any = integrator
        self._step_size = step_size
        self._num_steps = num_steps
        self._adaptation = Adaptation.of(False, adapt_mass_matrix, dense_mass, inverse_mass_matrix)
        self._num_warmup = 0

    @abstractmethod
    def _dynamics(self, step_size: Array) -> dict[str, Array | float]:
        """Arguments of the integrator's step besides the step size."""

    def _in_coordinates(self, z, adapt_state, model_args, model_kwargs):
        """`z` in the coordinates of the metric, the gradient there, and the way back."""
        x, unravel, potential = self._flat(z, model_args, model_kwargs)
        root = None if adapt_state is None else flat_root(adapt_state.mass_matrix_sqrt_inv, z)
        v, position = coordinates(root, x)
        gradient = jax.grad(potential)
        return v, lambda v: whiten(root, gradient(position(v))), lambda v: unravel(position(v))

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        self._num_warmup = num_warmup
        x, _, potential = self._flat(z, model_args, model_kwargs)
        key_noise, key_curvature, key_adapt, rng_key = random.split(rng_key, 4)
        adapt_state = None
        if self._adaptation.mass_matrix or self._adaptation.inverse_mass_matrix is not None:
            adapt_state = self._adaptation.start(z, key_adapt, num_warmup)()
        v, gradient, _ = self._in_coordinates(z, adapt_state, model_args, model_kwargs)
        start = self._integrator.init(v, random.normal(key_noise, x.shape, x.dtype), gradient)
        state = UnadjustedState(
            i=jnp.array(0),
            z=z,
            z_grad=start.grad,
            memory=start.memory,
            step_size=jnp.asarray(self._step_size or 1.0, x.dtype),
            variance_error=None,
            stiffness=None,
            adapt_state=adapt_state,
            diverging=jnp.array(False),
            num_grad_evals=jnp.array(0),
            rng_key=rng_key,
        )
        if self._step_size is None:
            state = self._with_safe_step(state, stiffness_at(gradient, v, key_curvature))
        return state, (potential(x), start.grad)

    def _with_safe_step(self, state, stiffness):
        step_size, error = safe_step(self._integrator, stiffness, state.z_grad, self._dynamics)
        return state._replace(step_size=step_size, variance_error=error, stiffness=stiffness)

    def _sample_chain(self, state, model_args, model_kwargs):
        v, gradient, position = self._in_coordinates(
            state.z, state.adapt_state, model_args, model_kwargs
        )
        rng_key, key_steps, key_curvature = random.split(state.rng_key, 3)
        start = IntegratorState(v, state.z_grad, state.memory)
        final = step(
            key_steps,
            start,
            gradient,
            self._integrator,
            state.step_size,
            self._num_steps,
            **self._dynamics(state.step_size),
        )
        # What is not finite once stays so: one look at the end sees every step.
        finite = all_finite(final)
        if self._num_warmup and self._step_size is None:
            # In warmup the step may be far too long still: nor is such a draw made that ends on a
            # slope which neither the start nor chance, at the curvature that is known, explains.
            usual = jnp.sqrt(v.size * state.stiffness.curvature)
            usual = jnp.maximum(usual, jnp.linalg.norm(state.z_grad))
            is_steep = jnp.linalg.norm(final.grad) > LARGEST_RISE * usual
            finite = finite & ((state.i >= self._num_warmup) | ~is_steep)
        # What may have led astray, a huge momentum, is not to be tried again.
        at_rest = start._replace(memory=jax.tree.map(jnp.zeros_like, start.memory))
        final = select(finite, final, at_rest)
        state = state._replace(
            i=state.i + 1,
            z=position(final.x),
            z_grad=final.grad,
            memory=final.memory,
            diverging=~finite,
            num_grad_evals=jnp.array(self._num_steps * self._integrator.num_grad_evals),
            rng_key=rng_key,
        )
        return self._after_warmup_draw(state, key_curvature, model_args, model_kwargs)

    def _after_warmup_draw(self, state, key, model_args, model_kwargs):
        """
        The state after what a draw of warmup does: learn the metric, and keep the step below what
        the largest curvature on the way allows. A metric that changes begins anew.
        """
        if not self._num_warmup or not (self._adaptation.mass_matrix or self._step_size is None):
            return state

        def learn(state):
            adapt_state = state.adapt_state
            if self._adaptation.mass_matrix:
                _, update = self._adaptation.adapter(self._num_warmup)
                adapt_state = update(state.i - 1, jnp.zeros(()), (state.z,), adapt_state)
            state = state._replace(adapt_state=adapt_state)
            return lax.cond(jnp.any(state.i == window_ends), at_window_end, within, state)

        def at_window_end(state):
            state = self.refresh(state, model_args, model_kwargs)
            return state if self._step_size else self._with_safe_step(state, stiffness_here(state))

        def within(state):
            if self._step_size is not None:
                return state
            # Steps that left the finite numbers met more than was known.
            known = state.stiffness
            more = jnp.where(state.diverging, 2.0, 1.0) * known.curvature
            stiffness = stiffness_here(state, known._replace(curvature=more))
            num_grad_evals = state.num_grad_evals + 2 * NUM_ITERATIONS
            return self._with_safe_step(state._replace(num_grad_evals=num_grad_evals), stiffness)

        def stiffness_here(state, known=None):
            v, gradient, _ = self._in_coordinates(
                state.z, state.adapt_state, model_args, model_kwargs
            )
            if known is None:
                return stiffness_at(gradient, v, key)
            return stiffness_with(known, gradient, v, key)

        # The last window is the one that sets the step.
        *windows, _ = build_adaptation_schedule(self._num_warmup)
        window_ends = np.array([end + 1 for _, end in windows])
        return lax.cond(state.i <= self._num_warmup, learn, lambda state: state, state)

    def refresh(self, state, model_args, model_kwargs):
        """The gradient at the current point for other arguments of the model, or another metric."""
        v, gradient, _ = self._in_coordinates(state.z, state.adapt_state, model_args, model_kwargs)
        return state._replace(z_grad=gradient(v))

    def get_diagnostics_str(self, state):
        text = f"step size {state.step_size:.2e}"
        return text if self._step_size else f"{text}. variance {state.variance_error:+.0%}"
