# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The loss on points that are held out, and when it has stopped falling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores.training._batches import points_in_memory
from numpyro_scores.training._placement import Placement
from numpyro_scores.training._steps import Carried, LossFn, copied


class HeldOut:
    """
    The loss of the averaged parameters every `every` steps and after the last one, always with the
    same key, so that two of them differ by what was learned and not by their noise. Without points
    there is none.

    - **losses**, **steps** - the losses so far, and after how many steps each was.
    - **best** - with `patience` the parameters of the lowest loss so far, and the state of the
      module then.
    """

    def __init__(
        self,
        points: Any,
        loss_fn: LossFn,
        params: Any,
        carried: Carried,
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
        self._every, self._num_steps = every, num_steps
        self._loss = jax.jit(lambda *args: loss_fn(*args, training=False)[0])
        self.points = points
        if points is not None:
            self.points = points_in_memory("validation", points, module)
            self._points = placement.replicate(self.points)
        self.losses, self.steps = np.empty(0), np.empty(0, int)
        kept = None if patience is None else jax.tree.map(jnp.array, (params, carried.module))
        self.best = placement.replicate(kept)

    @property
    def last_loss(self) -> float | None:
        return float(self.losses[-1]) if len(self.losses) else None

    def evaluate(self, step: int, params: Any, carried: Carried) -> None:
        """Add the loss after `step` steps, if it is time."""
        if self.points is None or (step % self._every and step != self._num_steps):
            return
        size = len(jax.tree.leaves(self._points)[0])
        total: Any = 0.0
        for start in range(0, size, self._batch_size):
            stop = min(start + self._batch_size, size)
            x = jax.tree.map(lambda x, at=slice(start, stop): x[at], self._points)
            key = random.fold_in(self._key, start)
            total += (stop - start) * self._loss(params, x, carried, key)
        loss = float(total) / size
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"The validation loss is {loss} after {step} steps, though those of training are "
                "finite: look at the scale of the points that are held out."
            )
        if self.best is not None and not np.any(self.losses <= loss):
            self.best = copied((params, carried.module))
        self.losses, self.steps = np.append(self.losses, loss), np.append(self.steps, step)

    def has_stopped_falling(self) -> bool:
        """Whether `patience` losses in a row have not been below the lowest one before."""
        if self._patience is None or not len(self.losses):
            return False
        return len(self.losses) - 1 - int(np.argmin(self.losses)) >= self._patience
