# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints: the whole state of a training, written by Orbax."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from numpyro_scores._words import is_key, to_numpy
from numpyro_scores.training._identity import differences


class Checkpoints:
    """
    The last checkpoints in a folder. Orbax writes each under another name, and renames it when it
    is complete: a process that is killed leaves those that were there before.

    :param directory: None for no checkpoints.
    :param configuration: what the training is a function of, as JSON can hold it. Its `num_steps`
        may be another than then: a training is extended.
    """

    def __init__(self, directory: Any, configuration: Any):
        self._configuration = configuration
        self._manager: Any = None
        self._last_step: int | None = None
        if directory is None:
            return
        import orbax.checkpoint as ocp  # a quarter of a second

        self._directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        try:
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        except (OSError, ValueError) as error:
            raise OSError(
                f"No checkpoint can be written to checkpoint_dir={str(directory)!r}: {error}"
            ) from error

    def save(self, step: int, tree: Any, history: dict[str, np.ndarray]) -> None:
        """
        Write the state after `step` steps, unless it is there.

        :param history: arrays that grow from step to step.
        """
        if self._manager is None or step == self._last_step:
            return
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(
            configuration=ocp.args.JsonSave(self._configuration),
            state=ocp.args.StandardSave(_arrays(tree)),
            history=ocp.args.StandardSave({k: v for k, v in history.items() if v.size}),
        )
        try:
            self._manager.save(step, args=args)
        except Exception as error:
            there = "none is" if self._last_step is None else f"that of {self._last_step} is"
            raise OSError(
                f"The checkpoint of step {step} could not be written to {self._directory} "
                f"({there} there): is the disk full, or the folder gone? It said: {error}"
            ) from error
        self._last_step = step

    def restore(self, tree: Any) -> tuple[int, Any, dict[str, np.ndarray]]:
        """
        The last step, state and history that were saved; without any, 0, the given state and none.

        :param tree: a state of the structure, shapes and dtypes that are wanted.
        :raises ValueError: if the checkpoint is of another configuration, or can't be read.
        """
        step = None if self._manager is None else self._manager.latest_step()
        if step is None:
            return 0, tree, {}
        import orbax.checkpoint as ocp

        wanted = ocp.args.Composite(configuration=ocp.args.JsonRestore())
        self._check_configuration(step, self._read(step, wanted).configuration)
        arrays = ocp.args.StandardRestore(_arrays(tree))
        history = ocp.args.StandardRestore()
        found = self._read(step, ocp.args.Composite(state=arrays, history=history))
        restored = iter(found.state)
        self._last_step = step
        state = jax.tree.map(lambda x: _like(next(restored), x) if x.size else x, tree)
        return step, state, {name: np.asarray(x) for name, x in found.history.items()}

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()

    def _read(self, step: int, args: Any) -> Any:
        try:
            return self._manager.restore(step, args=args)
        except Exception as error:
            raise ValueError(
                f"The checkpoint of step {step} in {self._directory} can't be read: {error}\n"
                f"Remove the folder {self._directory / str(step)} to go on from the one before."
            ) from error

    def _check_configuration(self, step: int, found: dict[str, Any]) -> None:
        num_steps = self._configuration["num_steps"]
        if step > num_steps:
            raise ValueError(
                f"The checkpoint in {self._directory} is of {step} steps, more than num_steps="
                f"{num_steps}: give that many or more to go on, or another checkpoint_dir."
            )
        other = sorted(differences(found | {"num_steps": num_steps}, self._configuration))
        if other:
            raise ValueError(
                f"The checkpoint of step {step} in {self._directory} is of another training. Give "
                "its arguments again to go on with it, or another checkpoint_dir to start anew. "
                "It differs in\n" + "\n".join(other)
            )


def _arrays(tree: Any) -> list[np.ndarray]:
    # Orbax refuses arrays without entries.
    return [to_numpy(leaf) for leaf in jax.tree.leaves(tree) if leaf.size]


def _like(restored: np.ndarray, leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return np.array(restored)
    if is_key(leaf):
        return random.wrap_key_data(jnp.asarray(restored), impl=random.key_impl(leaf))
    return jnp.asarray(restored)
