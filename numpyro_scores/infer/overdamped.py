# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Unadjusted overdamped Langevin dynamics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.infer.initialization import init_to_uniform

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.curvature import curvature_at
from numpyro_scores.infer._base import LangevinKernel, PotentialFn
from numpyro_scores.infer._trees import all_finite, select
from numpyro_scores.integrators import EulerMaruyama, IntegratorState, OverdampedIntegrator

# With step_size=None the step is this over the largest curvature at the start: the variance of
# Euler-Maruyama is then at most 11% too large in the stiffest direction, and less in all others.
STEP_FRACTION = 0.2


class OverdampedState(NamedTuple):
    """
    - **z** - unconstrained values, a pytree.
    - **integrator_state** - flat position, its gradient, and what the integrator carries.
    - **step_size** - the step size `h`, shape `()`.
    - **diverging** - whether the steps of this draw left the finite numbers, and so were not made.
    - **num_grad_evals** - number of gradients of this draw.
    - **rng_key** - key of the next draw.
    """

    z: Any
    integrator_state: IntegratorState
    step_size: Array
    diverging: Array
    num_grad_evals: Array
    rng_key: Array


class OverdampedLangevin(LangevinKernel):
    r"""
    Unadjusted Langevin dynamics :math:`z \leftarrow z - h \nabla U(z) + \sqrt{2h}\, \xi` in the
    unconstrained space of a model. There is no Metropolis test: the draws are biased by the step
    size (see the integrators) and the potential energy itself is never evaluated, only its
    gradient, so that a score is all it needs.

    :param model: a NumPyro model with continuous latent sites.
    :param potential_fn: a potential energy, in place of a model.
    :param step_size: the step size `h`; by default 0.2 over the largest curvature at the start.
    :param num_steps: number of steps between two draws.
    :param integrator: the one-step map.
    :param init_strategy: NumPyro's, where a model starts.
    :raises ValueError: if the integrator is an underdamped one.

    Steps that leave the finite numbers are not made: the chain stays at its last draw, and
    `diverging` says so.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float | None = None,
        num_steps: int = 10,
        integrator: OverdampedIntegrator = EulerMaruyama(),
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        if step_size is not None:
            check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        if not isinstance(integrator, OverdampedIntegrator):
            raise ValueError(
                "integrator must be an overdamped one, such as EulerMaruyama() or "
                f"LeimkuhlerMatthews(), got {integrator!r}. For one with a momentum use "
                "UnderdampedLangevin."
            )
        self._step_size = step_size
        self._num_steps = num_steps
        self._integrator = integrator

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        x, _, potential = self._flat(z, model_args, model_kwargs)
        gradient = jax.grad(potential)
        key_noise, key_curvature, rng_key = random.split(rng_key, 3)
        noise = random.normal(key_noise, x.shape, x.dtype)
        step_size = self._step_size
        if step_size is None:
            curvature = curvature_at(gradient, x, key_curvature)
            # A straight potential bounds no step.
            step_size = jnp.where(curvature > 0, STEP_FRACTION / curvature, 1.0)
        integrator_state = self._integrator.init(x, noise, gradient)
        state = OverdampedState(
            z=z,
            integrator_state=integrator_state,
            step_size=jnp.asarray(step_size, x.dtype),
            diverging=jnp.array(False),
            num_grad_evals=jnp.array(0),
            rng_key=rng_key,
        )
        return state, (potential(x), integrator_state.grad)

    def _sample_chain(self, state, model_args, model_kwargs):
        _, unravel, potential = self._flat(state.z, model_args, model_kwargs)
        gradient = jax.grad(potential)
        rng_key, key_steps = random.split(state.rng_key)

        def step(current, key):
            shape = (self._integrator.num_noises, *current.x.shape)
            noise = random.normal(key, shape, current.x.dtype)
            return self._integrator.step(current, noise, gradient, state.step_size), None

        start = state.integrator_state
        final, _ = lax.scan(step, start, random.split(key_steps, self._num_steps))
        # What is not finite once stays so: one look at the end sees every step.
        finite = all_finite(final)
        final = select(finite, final, start)
        return state._replace(
            z=unravel(final.x),
            integrator_state=final,
            diverging=~finite,
            num_grad_evals=jnp.array(self._num_steps * self._integrator.num_grad_evals),
            rng_key=rng_key,
        )

    def refresh(self, state, model_args, model_kwargs):
        """The gradient at the current position for other arguments of the model."""
        x, _, potential = self._flat(state.z, model_args, model_kwargs)
        grad = jax.grad(potential)(x)
        return state._replace(integrator_state=state.integrator_state._replace(grad=grad))

    def get_diagnostics_str(self, state):
        return f"step size {state.step_size:.2e}"


def ULA(
    model: Callable | None = None,
    potential_fn: PotentialFn | None = None,
    *,
    step_size: float | None = None,
    num_steps: int = 10,
    init_strategy: Callable = init_to_uniform,
) -> OverdampedLangevin:
    """
    The unadjusted Langevin algorithm: :class:`OverdampedLangevin` with
    :class:`~numpyro_scores.integrators.EulerMaruyama`. On a Gaussian of precision `l` its
    stationary variance is `1 / l / (1 - h l / 2)` (Roberts & Tweedie 1996).
    """
    return OverdampedLangevin(
        model,
        potential_fn,
        step_size=step_size,
        num_steps=num_steps,
        integrator=EulerMaruyama(),
        init_strategy=init_strategy,
    )
