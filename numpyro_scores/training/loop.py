# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""`fit`: the loop of training, and what happens between its chunks of steps."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import jax
import optax
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike
from tqdm.auto import tqdm

from numpyro_scores.training._checkpoints import Checkpoints
from numpyro_scores.training._checks import as_callbacks, check_arguments, check_options
from numpyro_scores.training._training import Options, Training
from numpyro_scores.training.results import FitProgress, FitResult


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
    validation: Any = None,
    validate_every: int | None = None,
    patience: int | None = None,
    callbacks: Callable[[FitProgress], Any] | Sequence[Callable[[FitProgress], Any]] = (),
    checkpoint_dir: Any = None,
    checkpoint_every: int = 1_000,
    mesh: Mesh | None = None,
    precision: DTypeLike | None = None,
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

    :param module: an energy, a score or a denoiser, whatever the objective wants. Trained are: of a
        Flax nnx module, wherever it is, its `nnx.Param` (its other variables are kept from step to
        step, and dropout draws a mask at each step from `key`); of a distribution its parameters,
        within their constraints, not its support, reference or noise level; of any other callable
        pytree (an Equinox module, a `functools.partial` that holds the weights) its arrays of
        floats.
    :param objective: `objective(module, x, *, key)`, of shape `()`. One that carries a state from
        step to step has `objective.init(data, key)`, and `objective(module, x, state, *, key)`
        returns the loss and the next state.
    :param data: points, floats of shape `(n, *event_shape)`, held on the device, or a list of rows;
        for a discrete distribution integers, too, of its support. Standardise them, or give the
        network their `sigma_data`: data of another scale than the network or the levels of the
        process are told in a warning. A dict of arrays with one leading axis, points
        and their labels, say, comes to the objective as a dict.

        Or an iterable of such batches, of any sizes: their points, one after the other and pass
        after pass, are cut into batches of `batch_size`, so that a short last batch weighs its
        points no more than others. Nothing is shuffled. `objective.init` sees the first batch.
    :param key: key of the batches and of the objective's own noise.
    :param optimizer: from Optax; by default Adam whose step size falls from 1e-3 to 0 on a cosine.
        Gradients are clipped by `optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))`.
    :param num_steps: number of steps; more than those of a checkpoint extend that training.
    :param batch_size: number of points in a batch, at most `n`.
    :param ema_decay: :math:`\beta`, in [0, 1); 0 returns the last parameters.
    :param validation: points that are held out, as `data` in memory, or a list of batches: the loss
        of the averaged module on them, in evaluation mode and always with the same key, is in the
        result and in the bar.
    :param validate_every: steps between two validation losses; by default a fiftieth of
        `num_steps`.
    :param patience: stop after so many validation losses in a row that aren't below the lowest one,
        and return the averaged module of that one (also where all steps are made).
    :param callbacks: one function or several: each is called with a
        :class:`~numpyro_scores.FitProgress` between two chunks of steps, about
        fifty times in a training, and after each validation and checkpoint. Training stops after
        one that returns True.
    :param checkpoint_dir: a folder. All that training goes on from is written there every
        `checkpoint_every` steps and at the end, and read from there when `fit` is called again with
        the same arguments: the result is, bit for bit, that of a training that went through. A
        process that is killed at any moment leaves a whole checkpoint. Another objective or
        optimizer is told by their fields, numbers and arrays, but not by what a function does
        behind its name. An iterable is read again from its start up to where it stood.
    :param checkpoint_every: steps between two checkpoints.
    :param mesh: devices that share the points of a batch; `batch_size` must be a multiple of their
        number. With several processes (`jax.distributed.initialize`) each calls `fit` with the same
        arguments; all see one `checkpoint_dir`.
    :param precision: the type that parameters and points are cast to for the loss, such as
        `jnp.bfloat16`; parameters, gradients, updates and averages stay as they are. Networks that
        are :class:`~numpyro_scores.nn.Preconditioned` keep that part in `float32`.
    :param progress_bar: show the steps and the loss.
    :return: the averaged module and the losses.
    :raises ValueError: if an argument is out of range, `data` isn't finite, the module or the
        objective refuses points of this shape, or a checkpoint is of other arguments.
    :raises TypeError: if an argument is something else, `data` isn't of floats or there is nothing
        to train.
    :raises FloatingPointError: as soon as a loss, or a parameter, isn't finite; the checkpoints
        before are left.
    :raises OSError: if a checkpoint can't be written.
    """
    check_arguments(module, objective, data, key)
    callbacks = as_callbacks(callbacks)
    check_options(
        num_steps=num_steps,
        batch_size=batch_size,
        ema_decay=ema_decay,
        validation=validation,
        validate_every=1 if validate_every is None else validate_every,
        patience=patience,
        checkpoint_every=checkpoint_every,
        precision=precision,
    )
    training = Training(
        module,
        objective,
        data,
        key,
        optimizer,
        Options(
            int(num_steps), int(batch_size), ema_decay, validate_every, patience, precision, mesh
        ),
        validation,
    )
    saved_to = None if checkpoint_dir is None else training.identity()
    quiet = not progress_bar or jax.process_index() > 0
    with closing(Checkpoints(checkpoint_dir, saved_to)) as checkpoints:
        start = training.resume(checkpoints)
        with tqdm(total=num_steps, initial=start, disable=quiet, desc="fit") as bar:
            for stop in training.chunks(start, checkpoint_every):
                loss = training.advance(start, stop)
                if stop % checkpoint_every == 0:
                    training.save(checkpoints, stop)
                bar.set_postfix(_shown(loss, training.held_out.last_loss), refresh=False)
                bar.update(stop - start)
                start = stop
                progress = training.progress(stop, loss)
                if any([callback(progress()) for callback in callbacks]):
                    break
        training.save(checkpoints, start)
    return training.result()


def _shown(loss: float, validation_loss: float | None) -> dict[str, str]:
    """The end of the progress bar."""
    shown = {"loss": loss, "validation": validation_loss}
    return {name: f"{value:.4g}" for name, value in shown.items() if value is not None}
