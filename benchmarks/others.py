# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Kernels of other packages, with NumPyro's `init` and `sample` for many chains at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.mcmc.mala import MALAState
from jax import Array, lax, random


class Vectorized:
    """
    A kernel of one chain for many: all chains share the draw counter `i`, so that a condition on it
    is not vmapped into both of its branches, and no adaptation is computed after warmup.
    """

    def __init__(self, kernel: Any):
        self._kernel = kernel

    def init(self, keys, num_warmup, z, model_args, model_kwargs):
        def init_chain(key, z):
            return self._kernel.init(key, num_warmup, z, model_args, model_kwargs)

        state = jax.vmap(init_chain)(keys, z)
        return state._replace(i=state.i[0])

    def sample(self, state, model_args, model_kwargs):
        axes = type(state)(*(None if name == "i" else 0 for name in state._fields))
        sample_chain = jax.vmap(self._kernel.sample, (axes, None, None), axes)
        return sample_chain(state, model_args, model_kwargs)


class BlackJAXMALAState(NamedTuple):
    """`z` is also the position of `mala_state`; `accept_prob` is the mean of a draw's steps."""

    i: Array
    z: Any
    mala_state: MALAState
    step_size: Array
    accept_prob: Array
    num_grad_evals: Array
    rng_key: Array


class BlackJAXMALA:
    """
    One chain of BlackJAX's MALA. It has no metric; `init` brings its step size to an acceptance of
    0.574 by BlackJAX's dual averaging, in `num_warmup` times `num_steps` steps.

    :param num_steps: steps between two draws.
    """

    def __init__(self, potential_fn: Callable, num_steps: int):
        self._log_density = lambda z: -potential_fn(z)
        self._num_steps = num_steps
        self._step = blackjax.mala.build_kernel()

    def init(self, rng_key, num_warmup, z, model_args, model_kwargs):
        start, update, final = dual_averaging_adaptation(target=0.574)

        def adapt(carry, key):
            mala_state, adapt_state = carry
            step_size = jnp.exp(adapt_state.log_step_size)
            mala_state, info = self._step(key, mala_state, self._log_density, step_size)
            return (mala_state, update(adapt_state, info.acceptance_rate)), None

        key_warmup, rng_key = random.split(rng_key)
        carry = blackjax.mala.init(z, self._log_density), start(0.1)
        keys = random.split(key_warmup, num_warmup * self._num_steps)
        (mala_state, adapt_state), _ = lax.scan(adapt, carry, keys)
        return BlackJAXMALAState(
            i=jnp.array(0),
            z=mala_state.position,
            mala_state=mala_state,
            step_size=final(adapt_state),
            accept_prob=jnp.zeros(()),
            num_grad_evals=jnp.array(0),
            rng_key=rng_key,
        )

    def sample(self, state, model_args, model_kwargs):
        rng_key, key_steps = random.split(state.rng_key)

        def step(mala_state, key):
            mala_state, info = self._step(key, mala_state, self._log_density, state.step_size)
            return mala_state, info.acceptance_rate

        keys = random.split(key_steps, self._num_steps)
        mala_state, accept_prob = lax.scan(step, state.mala_state, keys)
        return BlackJAXMALAState(
            i=state.i + 1,
            z=mala_state.position,
            mala_state=mala_state,
            step_size=state.step_size,
            accept_prob=jnp.mean(accept_prob),
            num_grad_evals=jnp.array(self._num_steps),
            rng_key=rng_key,
        )
