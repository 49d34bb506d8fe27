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

from numpyro_scores.training._modules import cast

LossFn = Callable[[Any, Any, Any, Array], tuple[Array, Any]]


class State(NamedTuple):
    """What goes from step to step."""

    params: Any
    average: Any
    opt_state: Any
    objective_state: Any


@jax.jit
def copied(tree: Any) -> Any:
    """Arrays that stay when those of the state are given away, in one call."""
    return jax.tree.map(jnp.copy, tree)


def make_loss(objective: Callable[..., Any], merge: Callable, precision: Any) -> LossFn:
    """The loss as a function of the parameters, in a given precision; and the objective's state."""

    def loss_fn(params, x, state, key):
        module, x = merge(cast(params, precision)), cast(x, precision)
        if state is None:
            loss, state = objective(module, x, key=key), None
        else:
            loss, state = objective(module, x, state, key=key)
        # Back to the precision that losses are kept in.
        return loss if precision is None else loss.astype(float), state

    return loss_fn


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
        (loss, objective_state), grad = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, x, state.objective_state, key_loss
        )
        updates, opt_state = optimizer.update(grad, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1 + t) / (10 + t))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return State(params, average, opt_state, objective_state), loss

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
