# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Training: `fit` a module to data under an objective."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax, random
from tqdm.auto import tqdm

from numpyro_scores._callables import as_pytree
from numpyro_scores._validation import check_batch, check_count

# Calls of the compiled loop in one `fit`: the progress bar moves, and the calls cost nothing.
NUM_CHUNKS = 50


class FitResult(NamedTuple):
    """
    What :func:`fit` returns.

    :param module: the module with the averaged parameters.
    :param losses: the loss of each step's batch, before the step; a NumPy array `(num_steps,)`.
    :param objective_state: what the objective carries from step to step, such as persistent chains;
        None if it carries nothing.
    """

    module: Any
    losses: np.ndarray
    objective_state: Any = None


class _State(NamedTuple):
    params: Any
    average: Any
    opt_state: Any
    objective_state: Any


def fit(
    module: Callable[..., Array],
    objective: Callable[..., Any],
    data: Any,
    *,
    key: Array,
    optimizer: optax.GradientTransformation | None = None,
    num_steps: int,
    batch_size: int = 128,
    ema_decay: float = 0.999,
    progress_bar: bool = True,
) -> FitResult:
    r"""
    Minimise `objective(module, x, key=key)` by stochastic gradients, on batches `x` drawn from
    `data` with replacement, and average the parameters over the steps `t = 0, 1, ...`:

    .. math::
        \bar\theta_{t + 1} = \beta_t \bar\theta_t + (1 - \beta_t) \theta_{t + 1}, \quad
        \beta_t = \min\left( \beta, \frac{1 + t}{10 + t} \right),

    so that the first parameters are soon forgotten. The result is a function of `key` and of the
    other arguments; the given module isn't changed.

    :param module: an energy, a score or a denoiser, whatever the objective wants: a Flax nnx
        module, whose `nnx.Param` are trained, or any other callable pytree (an Equinox module, a
        `jax.tree_util.Partial` that holds the weights), whose arrays of floats are trained.
    :param objective: `objective(module, x, *, key)`, of shape `()`. One that carries a state from
        step to step has `objective.init(data, key)`, and `objective(module, x, state, *, key)`
        returns the loss and the next state.
    :param data: points, floats of shape `(n, *event_shape)`, held on the device; for a discrete
        distribution integers, too, of its support.
    :param key: key of the batches and of the objective's own noise.
    :param optimizer: from Optax; by default Adam whose step size falls from 1e-3 to 0 on a cosine.
    :param num_steps: number of steps.
    :param batch_size: number of points in a batch, at most `n`.
    :param ema_decay: :math:`\beta`, in [0, 1); 0 returns the last parameters.
    :param progress_bar: show the steps and the loss.
    :return: the averaged module and the losses.
    :raises ValueError: if an argument is out of range, `data` isn't finite, or the module or the
        objective refuses points of this shape.
    :raises TypeError: if `data` isn't of floats or there is nothing to train.
    :raises FloatingPointError: as soon as a loss isn't finite.
    """
    check_count("num_steps", num_steps)
    check_count("batch_size", batch_size)
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must be in [0, 1), got {ema_decay!r}.")
    data = _check_data(data, batch_size, module)
    params, merge = _partition(module)
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, num_steps))

    def loss_fn(params, x, state, key):
        if state is None:
            return objective(merge(params), x, key=key), None
        return objective(merge(params), x, state, key=key)

    objective_state = None
    init = getattr(objective, "init", None)
    if init is not None:
        key, key_state = random.split(key)
        objective_state = init(data, key_state)
    _check_loss(loss_fn, params, data, batch_size, objective_state, key)

    def step(t, state, data):
        key_batch, key_loss = random.split(random.fold_in(key, t))
        x = data[random.randint(key_batch, (batch_size,), 0, len(data))]
        (loss, objective_state), grad = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, x, state.objective_state, key_loss
        )
        updates, opt_state = optimizer.update(grad, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1 + t) / (10 + t))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return _State(params, average, opt_state, objective_state), loss

    chunk_size = -(-num_steps // NUM_CHUNKS)

    # The bounds are traced, so that a last, shorter chunk doesn't compile again. The state is
    # donated: the parameters, their average and the optimizer's moments are updated in place.
    @partial(jax.jit, donate_argnums=0)
    def run_chunk(state, data, start, stop):
        def body(t, carry):
            state, losses = carry
            state, loss = step(t, state, data)
            return state, losses.at[t - start].set(loss)

        return lax.fori_loop(start, stop, body, (state, jnp.full(chunk_size, jnp.nan)))

    # Copies, which also part buffers that the optimizer shares with the parameters.
    state = jax.tree.map(jnp.array, _State(params, params, optimizer.init(params), objective_state))
    losses = np.empty(num_steps)
    with tqdm(total=num_steps, disable=not progress_bar, desc="fit") as bar:
        for start in range(0, num_steps, chunk_size):
            stop = min(start + chunk_size, num_steps)
            state, chunk = run_chunk(state, data, start, stop)
            losses[start:stop] = chunk[: stop - start]
            _check_losses(losses[:stop], start)
            bar.set_postfix(loss=f"{losses[start:stop].mean():.4g}", refresh=False)
            bar.update(stop - start)
    return FitResult(merge(state.average), losses, state.objective_state)


def _check_data(data: Any, batch_size: int, module: Any) -> Array:
    data = jnp.asarray(data)
    check_batch("data", data)
    if getattr(module, "is_discrete", False):
        data = data.astype(float)
        outside = np.argwhere(~np.asarray(module.support(data)).reshape(len(data), -1).all(axis=1))
        if len(outside):
            raise ValueError(
                f"data must be in the support of {type(module).__name__}, {module.support}, but "
                f"{len(outside)} of {len(data)} points are not, the first at index "
                f"{int(outside[0, 0])}."
            )
    if not jnp.issubdtype(data.dtype, jnp.floating):
        raise TypeError(
            f"data must be floats, got {data.dtype}. Scale it: images of 256 grey levels, for "
            "instance, by data / 127.5 - 1."
        )
    bad = np.argwhere(~np.isfinite(data))
    if len(bad):
        raise ValueError(
            f"data must be finite: {len(bad)} of {data.size} entries are NaN or infinite, the "
            f"first at index {tuple(map(int, bad[0]))}. Drop or fill these points."
        )
    if batch_size > len(data):
        raise ValueError(
            f"batch_size must be at most the number of points, got batch_size={batch_size} and "
            f"data of shape {data.shape}: give batch_size={len(data)} or less."
        )
    return data


def _partition(module: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The parameters of a module, and the function that gives the module back from them."""
    if isinstance(module, nnx.Module):
        graphdef, params, rest = nnx.split(module, nnx.Param, ...)

        def merge(params):
            return nnx.merge(graphdef, params, rest)
    else:
        leaves, treedef = jax.tree.flatten(as_pytree("module", module))
        params = {i: leaf for i, leaf in enumerate(leaves) if _is_float_array(leaf)}

        def merge(params):
            return treedef.unflatten([params.get(i, leaf) for i, leaf in enumerate(leaves)])

    if not jax.tree.leaves(params):
        raise TypeError(
            f"There is nothing to train in {type(module).__name__}: it has no nnx.Param and no "
            "array of floats. Weights that a function closes over can't be seen: pass them, as in "
            "jax.tree_util.Partial(function, weights)."
        )
    return params, merge


def _is_float_array(leaf: Any) -> bool:
    return isinstance(leaf, Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _check_loss(
    loss_fn, params: Any, data: Array, batch_size: int, objective_state: Any, key: Array
) -> None:
    """Trace the loss before anything is computed, so that a wrong shape is told in words."""
    batch = jax.ShapeDtypeStruct((batch_size, *data.shape[1:]), data.dtype)
    try:
        loss, _ = jax.eval_shape(loss_fn, params, batch, objective_state, key)
    except Exception as error:
        raise ValueError(
            f"The objective can't be evaluated on a batch of shape {batch.shape} from data of "
            f"shape {data.shape}: the module must take one point of shape {data.shape[1:]}. "
            f"It said: {error}"
        ) from error
    if loss.shape != ():
        raise ValueError(f"The objective must return a loss of shape (), got shape {loss.shape}.")


def _check_losses(losses: np.ndarray, start: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses[start:]))
    if len(bad):
        t = start + int(bad[0])
        before = f"{losses[t - 1]:.4g} the step before" if t else "it is the first step"
        raise FloatingPointError(
            f"The loss is {losses[t]} at step {t} ({before}). Lower the optimizer's step size or "
            "clip its gradients (optax.clip_by_global_norm); if it is the first step, look at the "
            "scale of the data and at the module's output on one point."
        )
