# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""One step of training, and many to a call."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax, random

from numpyro_scores.training._parameters import Parts
from numpyro_scores.training._pytrees import is_float_array


class Carried(NamedTuple):
    """What is not trained but goes from step to step: of the objective, and of the module."""

    objective: Any
    module: Any


# loss_fn(params, x, carried, key, training): the loss, and what is carried on.
LossFn = Callable[..., tuple[Array, Carried]]


class State(NamedTuple):
    """What goes from step to step."""

    params: Any
    average: Any
    opt_state: Any
    carried: Carried


@jax.jit
def copied(tree: Any) -> Any:
    """Arrays that stay when those of the state are given away, in one call."""
    return jax.tree.map(jnp.copy, tree)


def make_loss(objective: Callable[..., Any], parts: Parts, precision: Any) -> LossFn:
    """
    The loss as a function of the parameters, in a given precision; and what is carried. In training
    the module draws its random numbers from the key and may change its state, as dropout and batch
    statistics do; on points that are held out it is in evaluation mode.
    """

    def loss_fn(params, x, carried, key, training=True):
        params, x = cast(params, precision), cast(x, precision)
        if training:
            key_module = random.fold_in(key, 2)
            module, state_after = parts.merge_to_train(params, carried.module, key_module)
        else:
            module, state_after = parts.merge(params, carried.module), lambda: carried.module
        if carried.objective is None:
            loss, state = objective(module, x, key=key), None
        else:
            loss, state = objective(module, x, carried.objective, key=key)
        # Back to the precision that losses are kept in.
        loss = loss if precision is None else loss.astype(float)
        return loss, Carried(state, state_after())

    return loss_fn


def cast(tree: Any, dtype: Any) -> Any:
    """The arrays of floats in another precision; nothing else is changed, nor anything by None."""
    if dtype is None:
        return tree
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if is_float_array(leaf) else leaf, tree)


def make_step(
    loss_fn: LossFn,
    batch: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    key: Array,
) -> Callable:
    """`step(t, start, state, batches)`, the state after step `t` of those from `start` on."""

    def step(t, start, state, batches):
        key_batch, key_loss = random.split(random.fold_in(key, t))
        x = batch(batches, t - start, key_batch)
        (loss, carried), grad = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, x, state.carried, key_loss
        )
        updates, opt_state = optimizer.update(grad, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1 + t) / (10 + t))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return State(params, average, opt_state, carried), loss

    return step


def make_run(step: Callable, capacity: int, sharding: Any, one_by_one: bool) -> Callable:
    """
    `run(state, batches, start, stop)`: the state after the steps, and at most `capacity` losses.
    It compiles once, since the bounds are traced. The state is donated: the parameters, their
    average and the optimizer's moments are updated in place.
    """
    compiled = partial(jax.jit, donate_argnums=0, out_shardings=sharding)

    def one(carry, batches, t, start):
        state, losses = carry
        state, loss = step(t, start, state, batches)
        return state, losses.at[t - start].set(loss)

    if not one_by_one:

        @compiled
        def run(state, batches, start, stop):
            carry = state, jnp.full(capacity, jnp.nan)
            return lax.fori_loop(start, stop, lambda t, c: one(c, batches, t, start), carry)

        return run

    one_compiled = compiled(one)

    def run_one_by_one(state, batches, start, stop):
        carry = state, jnp.full(capacity, jnp.nan, device=sharding)
        for t in range(start, stop):
            carry = one_compiled(carry, batches, t, start)
        return carry

    return run_one_by_one
