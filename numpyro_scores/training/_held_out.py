# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The loss on points that are held out, and when it has stopped falling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores.training._batches import check_points
from numpyro_scores.training._placement import Placement
from numpyro_scores.training._steps import LossFn, copied


class HeldOut:
    """
    The loss of the averaged parameters every `every` steps and after the last one, always with the
    same key, so that two of them differ by what was learned and not by their noise. Without points
    there is none.

    With `patience` the parameters of the lowest loss so far are kept: `best`.
    """

    def __init__(
        self,
        points: Any,
        loss_fn: LossFn,
        params: Any,
        *,
        module: Any,
        batch_size: int,
        num_steps: int,
        every: int,
        patience: int | None,
        key: Array,
        placement: Placement,
    ):
        self._batch_size, self._patience, self._key = batch_size, patience, key
        self._loss = jax.jit(lambda *args: loss_fn(*args)[0])
        self._steps = np.empty(0, int)
        self.points = points
        if points is not None:
            self.points = check_points("validation", points, module)
            self._points = placement.replicate(self.points)
            self._steps = np.minimum(np.arange(every, num_steps + every, every), num_steps)
        # The losses, and the best parameters: what a checkpoint keeps.
        best = None if patience is None else placement.replicate(jax.tree.map(jnp.array, params))
        self.memory = np.full(len(self._steps), np.nan), best

    @property
    def best(self) -> Any:
        return self.memory[1] if len(self.history()[0]) else None

    @property
    def last_loss(self) -> float | None:
        losses, _ = self.history()
        return float(losses[-1]) if len(losses) else None

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """The losses so far, and after how many steps each was."""
        done = np.isfinite(self.memory[0])
        return self.memory[0][done], self._steps[done]

    def evaluate(self, step: int, params: Any, objective_state: Any) -> None:
        """Add the loss after `step` steps, if it is time."""
        if step not in self._steps:
            return
        size = len(jax.tree.leaves(self._points)[0])
        total: Any = 0.0
        for start in range(0, size, self._batch_size):
            stop = min(start + self._batch_size, size)
            x = jax.tree.map(lambda x, at=slice(start, stop): x[at], self._points)
            key = random.fold_in(self._key, start)
            total += (stop - start) * self._loss(params, x, objective_state, key)
        loss = float(total) / size
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"The validation loss is {loss} after {step} steps, though those of training are "
                "finite: look at the scale of the points that are held out."
            )
        losses, best = self.memory
        if best is not None and not np.any(losses <= loss):
            best = copied(params)
        losses[np.searchsorted(self._steps, step)] = loss
        self.memory = losses, best

    def has_stopped_falling(self) -> bool:
        """Whether `patience` losses in a row have not been below the lowest one before."""
        losses, _ = self.history()
        if self._patience is None or not len(losses):
            return False
        return len(losses) - 1 - int(np.argmin(losses)) >= self._patience
