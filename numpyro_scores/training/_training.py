# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A training: what `fit` prepares, resumes, advances chunk by chunk, and gives back."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, random
from jax.sharding import Mesh
from jax.typing import DTypeLike

from numpyro_scores.training._batches import PointsInMemory, Stream, is_stream
from numpyro_scores.training._checkpoints import Checkpoints
from numpyro_scores.training._checks import check_finite, check_optimizer, checked_jaxpr
from numpyro_scores.training._held_out import HeldOut
from numpyro_scores.training._identity import (
    configuration,
    description,
    fingerprint,
    name_of,
    structure,
)
from numpyro_scores.training._parameters import Parts
from numpyro_scores.training._placement import Placement
from numpyro_scores.training._pytrees import map_arrays
from numpyro_scores.training._scales import warn_of_scales
from numpyro_scores.training._steps import (
    Carried,
    State,
    copied,
    make_loss,
    make_run,
    make_step,
)
from numpyro_scores.training.results import FitProgress, FitResult

# Calls of the compiled loop in one `fit`: the progress bar moves, and the calls cost nothing.
NUM_CHUNKS = 50
# The steps fold their numbers into the key, which are all below.
HELD_OUT = 2**32 - 1


class Options(NamedTuple):
    """The options of `fit` that a training is a function of."""

    num_steps: int
    batch_size: int
    ema_decay: float
    validate_every: int | None
    patience: int | None
    precision: DTypeLike | None
    mesh: Mesh | None


class Training:
    """
    The state of a training and what moves it on.

    - **held_out** - the loss on points that are held out.
    """

    def __init__(
        self,
        module: Any,
        objective: Callable[..., Any],
        data: Any,
        key: Array,
        optimizer: optax.GradientTransformation | None,
        options: Options,
        validation: Any,
    ):
        self._options, self._key = options, key
        # Before anything is traced: what an objective notes then is no part of what it is.
        self._made_of = {
            "module": configuration(module),
            "objective": description(objective),
            "optimizer": "default" if optimizer is None else description(optimizer),
        }
        self._placement = Placement(options.mesh, options.batch_size)
        source = Stream if is_stream(data) else PointsInMemory
        self._source = source(data, options.batch_size, module, self._placement)
        self._parts = Parts(module)
        warn_of_scales(module, objective, self._source.data)
        if optimizer is None:
            optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, options.num_steps))
        check_optimizer(optimizer)
        self._loss_fn = make_loss(objective, self._parts, options.precision)
        key, carried = self._carried_at_start(objective, key)
        self._run = self._make_run(optimizer, carried, key)
        params = self._parts.params
        # Copies, which also part buffers that the optimizer shares with the parameters.
        state = State(params, params, optimizer.init(params), carried)
        self._state = jax.tree.map(jnp.array, state)
        self._losses = np.full(options.num_steps, np.nan)
        self.held_out = HeldOut(
            validation,
            self._loss_fn,
            params,
            carried,
            module=module,
            batch_size=options.batch_size,
            num_steps=options.num_steps,
            every=self._validate_every,
            patience=options.patience,
            key=random.fold_in(key, HELD_OUT),
            placement=self._placement,
        )

    def _carried_at_start(self, objective: Any, key: Array) -> tuple[Array, Carried]:
        init = getattr(objective, "init", None)
        if init is None:
            return key, Carried(None, self._parts.state)
        key, key_state = random.split(key)
        return key, Carried(init(self._source.data, key_state), self._parts.state)

    def _make_run(self, optimizer: Any, carried: Carried, key: Array) -> Callable:
        source, params = self._source, self._parts.params
        jaxpr = checked_jaxpr(self._loss_fn, params, source.data, source.example, carried, key)
        # XLA compiles the gradients of JAX's convolutions in a loop to naive code on a CPU, up to
        # 40 times slower than outside of one (jaxlib 0.10 to 0.12). The package's own are fast.
        one_by_one = "conv_general_dilated" in str(jaxpr) and jax.default_backend() == "cpu"
        step = make_step(self._loss_fn, source.batch, optimizer, self._options.ema_decay, key)
        return make_run(step, self._chunk_size, self._placement.replicated, one_by_one)

    @property
    def _chunk_size(self) -> int:
        return min(-(-self._options.num_steps // NUM_CHUNKS), self._source.max_steps)

    @property
    def _validate_every(self) -> int:
        given = self._options.validate_every
        return -(-self._options.num_steps // NUM_CHUNKS) if given is None else given

    def identity(self) -> dict[str, Any]:
        """What the training is a function of, as JSON can hold it."""
        options, source, parts = self._options, self._source, self._parts
        every = options.validate_every
        nothing = jax.tree.map(jnp.zeros_like, (parts.params, parts.state))
        return self._made_of | {
            "parameters": structure(parts.params),
            "constants": fingerprint(_arrays(parts.merge(*nothing))),
            "optimizer state": structure(self._state.opt_state),
            "data": fingerprint(source.data),
            "validation": fingerprint(self.held_out.points),
            "key": fingerprint(self._key),
            "num_steps": options.num_steps,
            "batch_size": options.batch_size,
            "ema_decay": float(options.ema_decay),
            "validate_every": None if every is None else int(every),
            "patience": options.patience,
            "precision": None if options.precision is None else jnp.dtype(options.precision).name,
        }

    def resume(self, checkpoints: Checkpoints) -> int:
        """Go to where the last checkpoint is: after how many steps."""
        held_out = self.held_out
        start, state, history = checkpoints.restore((self._state, held_out.best))
        self._state, held_out.best = state
        self._state = self._placement.replicate(self._state)
        self._losses[:start] = history.get("losses", self._losses[:start])
        held_out.losses = history.get("validation_losses", held_out.losses)
        held_out.steps = history.get("validation_steps", held_out.steps)
        self._source.skip(start)
        self._made = start
        return start

    def save(self, checkpoints: Checkpoints, step: int) -> None:
        """Write a checkpoint of where it is, after `step` steps."""
        history = {
            "losses": self._losses[:step],
            "validation_losses": self.held_out.losses,
            "validation_steps": self.held_out.steps,
        }
        checkpoints.save(step, (self._state, self.held_out.best), history)

    def chunks(self, start: int, checkpoint_every: int) -> Iterator[int]:
        """Where chunks of steps end: wherever something is to be done, or training has stopped."""
        periods = self._chunk_size, self._validate_every, checkpoint_every
        while start < self._options.num_steps and not self.held_out.has_stopped_falling():
            nexts = (start - start % period + period for period in periods)
            start = min(self._options.num_steps, *nexts)
            yield start

    def advance(self, start: int, stop: int) -> float:
        """Make the steps from `start` on; their mean loss."""
        batches = self._source.next_batches(stop - start, self._chunk_size)
        self._state, losses = self._run(self._state, batches, start, stop)
        self._losses[start:stop] = np.asarray(losses)[: stop - start]
        check_finite(self._losses[:stop], start, self._state.params)
        self.held_out.evaluate(stop, self._state.average, self._state.carried)
        self._made = stop
        return self._losses[start:stop].mean()

    def progress(self, step: int, loss: float) -> Callable[[], FitProgress]:
        """What makes the news of a callback, with arrays of its own."""

        def news() -> FitProgress:
            average, state = copied((self._state.average, self._state.carried.module))
            module = self._parts.merge(*self._placement.collect((average, state)))
            return FitProgress(step, loss, self.held_out.last_loss, module)

        return news

    def result(self) -> FitResult:
        """The averaged module, or the best one, and the losses."""
        held_out, state = self.held_out, self._state
        average = state.average, state.carried.module
        if held_out.best is not None and len(held_out.losses):
            average = held_out.best
        return FitResult(
            self._parts.merge(*self._placement.collect(average)),
            self._losses[: self._made],
            self._placement.collect(state.carried.objective),
            held_out.losses,
            held_out.steps,
        )


def _arrays(module: Any) -> dict[str, Any]:
    """The arrays of a module by name; without a name twice, which only a file minds."""
    found: dict[str, Any] = {}

    def note(path: Any, array: Any) -> Any:
        found[name_of(path)] = array
        return array

    map_arrays(note, module)
    return found
