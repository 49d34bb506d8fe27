# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Files that are replaced whole, and one writer at a time."""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from numpyro_scores.long_runs.stores import Arrays, Checkpoint


def replaced(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that whoever reads it, whenever, finds the old one or the new one."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """JSON as by :func:`replaced`."""
    text = json.dumps(content).encode()
    replaced(path, lambda file: file.write(text))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class StateFiles:
    """
    The state of a sampler as files of NumPy's in a folder, each with a number of its own: the
    newest is written, then named by whoever commits, then the older ones are removed.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def write(self, checkpoint: Checkpoint) -> str:
        """Write the arrays; the name of the file."""
        self._folder.mkdir(exist_ok=True)
        record = checkpoint.record
        name = f"state_{record['num_warmup']}_{record['num_draws']}.npz"
        # Another process of the same draws may have written other arrays under this name.
        arrays: dict[str, Any] = dict(checkpoint.arrays)
        replaced(self._folder / name, lambda file: np.savez(file, **arrays))
        return name

    def read(self, name: str) -> Arrays:
        with np.load(self._folder / name, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def remove_others(self, name: str) -> None:
        """What a killed process has left, and the states before this one."""
        for path in self._folder.iterdir():
            if path.name != name:
                path.unlink(missing_ok=True)


class Writer:
    """
    That this process alone writes to a folder. The lock goes with the process, however it ends.
    """

    def __init__(self, path: Path, what: str):
        self._path, self._what = path, what
        self._lock: Any = None

    def hold(self) -> None:
        """
        :raises RuntimeError: if another process has it.
        """
        if self._lock is not None:
            return
        from filelock import FileLock, Timeout

        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise RuntimeError(
                f"Another run is writing {self._what}: wait until it has ended, or give a store of "
                "its own. (To read it meanwhile is fine.)"
            ) from None
        self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
