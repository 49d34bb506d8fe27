# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What `fit` returns, and what it tells its callbacks."""

from typing import Any, NamedTuple

import numpy as np


class FitResult(NamedTuple):
    """
    What :func:`fit` returns.

    :param module: the module with the averaged parameters; after `patience`, those of the lowest
        validation loss. Flax modules are in evaluation mode (`nnx.Module.eval`).
    :param losses: the loss of each step's batch, before the step; a NumPy array, one entry for each
        step that was made.
    :param objective_state: what the objective carries from step to step, such as persistent chains;
        None if it carries nothing.
    :param validation_losses: the validation losses of the averaged module; a NumPy array.
    :param validation_steps: after how many steps each of them was; a NumPy array.
    """

    module: Any
    losses: np.ndarray
    objective_state: Any = None
    validation_losses: np.ndarray = np.empty(0)
    validation_steps: np.ndarray = np.empty(0, int)

    def __repr__(self) -> str:
        """One line; the module's own has hundreds."""
        parts = [f"module={type(self.module).__name__}", f"{len(self.losses)} steps"]
        if len(self.losses):
            last = self.losses[-max(1, len(self.losses) // 10) :]
            parts.append(
                f"loss {self.losses[0]:.4g} -> {np.mean(last):.4g} (mean of the last tenth)"
            )
        if len(self.validation_losses):
            i = int(np.argmin(self.validation_losses))
            parts.append(
                f"validation {self.validation_losses[-1]:.4g} (lowest "
                f"{self.validation_losses[i]:.4g} after {self.validation_steps[i]} steps)"
            )
        return f"FitResult({', '.join(parts)})"


class FitProgress(NamedTuple):
    """
    What a callback of :func:`fit` is told.

    :param step: the number of steps that were made.
    :param loss: the mean loss of the steps since the last call.
    :param validation_loss: the last one; None before the first, and without `validation`.
    :param module: the module with the averaged parameters, the callback's to keep.
    """

    step: int
    loss: float
    validation_loss: float | None
    module: Any

    def __repr__(self) -> str:
        validation = (
            "" if self.validation_loss is None else f", {self.validation_loss:.4g} held out"
        )
        module = type(self.module).__name__
        return f"FitProgress(step {self.step}, loss {self.loss:.4g}{validation}, module={module})"
