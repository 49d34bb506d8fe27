# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""BlackJAX's microcanonical samplers, with its own warmup, as kernels of one chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax.numpy as jnp
from blackjax.adaptation.adjusted_mclmc_adaptation import adjusted_mclmc_find_L_and_step_size
from blackjax.adaptation.mclmc_adaptation import (
    MCLMCAdaptationState,
    mclmc_find_L_and_step_size,
)
from blackjax.mcmc.adjusted_mclmc_dynamic import make_random_trajectory_length_fn
from blackjax.mcmc.integrators import isokinetic_velocity_verlet
from jax import Array, random


class BlackJAXState(NamedTuple):
    """`z` is also the position of `inner`, BlackJAX's own state."""

    i: Array
    z: Array
    inner: Any
    params: MCLMCAdaptationState
    num_grad_evals: Array
    rng_key: Array

    @property
    def step_size(self) -> Array:
        return jnp.asarray(self.params.step_size)


class BlackJAXMCLMC:
    """
    One chain of `blackjax.mclmc`; the minimal norm, two gradients a step, and a step a draw. `init`
    makes the whole warmup.

    :param num_tuning_steps: of `mclmc_find_L_and_step_size`, whose phases take each a tenth of what
        it calls `num_steps`.
    :param has_metric: whether a diagonal one is learned.
    """

    def __init__(self, potential: Callable, num_tuning_steps: int, has_metric: bool):
        self._log_density = lambda z: -potential(z)
        self._num_tuning_steps, self._has_metric = num_tuning_steps, has_metric
        self._step = blackjax.mclmc.build_kernel()

    def init(self, rng_key, num_warmup, z, model_args, model_kwargs):
        key_init, key_tune, rng_key = random.split(rng_key, 3)
        inner = blackjax.mclmc.init(z, self._log_density, key_init)
        inner, params, _ = mclmc_find_L_and_step_size(
            self._step,
            num_steps=10 * self._num_tuning_steps // 3,
            state=inner,
            rng_key=key_tune,
            logdensity_fn=self._log_density,
            diagonal_preconditioning=self._has_metric,
        )
        i, num_grad_evals = jnp.array(0), jnp.array(2)
        return BlackJAXState(i, inner.position, inner, params, num_grad_evals, rng_key)

    def sample(self, state, model_args, model_kwargs):
        rng_key, key = random.split(state.rng_key)
        inner, _ = self._step(
            key,
            state.inner,
            self._log_density,
            state.params.inverse_mass_matrix,
            state.params.L,
            state.params.step_size,
        )
        return state._replace(i=state.i + 1, z=inner.position, inner=inner, rng_key=rng_key)


class BlackJAXMAMS:
    """
    One chain of `blackjax.adjusted_mclmc_dynamic` with the leapfrog, uniform lengths and its own
    warmup, of which 0.9 is the acceptance aimed at.

    :param num_tuning_draws: of `adjusted_mclmc_find_L_and_step_size`.
    :param has_metric: whether a diagonal one is learned.
    """

    def __init__(self, potential: Callable, num_tuning_draws: int, has_metric: bool):
        self._log_density = lambda z: -potential(z)
        self._num_tuning_draws, self._has_metric = num_tuning_draws, has_metric
        self._step = blackjax.adjusted_mclmc_dynamic.build_kernel(
            integration_steps_fn=make_random_trajectory_length_fn(True),
            integrator=isokinetic_velocity_verlet,
        )

    def init(self, rng_key, num_warmup, z, model_args, model_kwargs):
        key_init, key_tune, rng_key = random.split(rng_key, 3)
        inner = blackjax.adjusted_mclmc_dynamic.init(z, self._log_density, key_init)
        inner, params, _ = adjusted_mclmc_find_L_and_step_size(
            self._step,
            self._log_density,
            num_steps=self._num_tuning_draws,
            state=inner,
            rng_key=key_tune,
            target=0.9,
            frac_tune1=0.5,
            frac_tune2=0.5,
            diagonal_preconditioning=self._has_metric,
        )
        i, num_grad_evals = jnp.array(0), jnp.array(0)
        return BlackJAXState(i, inner.position, inner, params, num_grad_evals, rng_key)

    def sample(self, state, model_args, model_kwargs):
        rng_key, key = random.split(state.rng_key)
        params = state.params
        inner, info = self._step(
            key,
            state.inner,
            self._log_density,
            params.step_size,
            inverse_mass_matrix=params.inverse_mass_matrix,
            integration_steps_params=(params.L / params.step_size,),
        )
        return state._replace(
            i=state.i + 1,
            z=inner.position,
            inner=inner,
            num_grad_evals=info.num_integration_steps,
            rng_key=rng_key,
        )
