# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Ctrl-C as a wish that a run hears at the end of a chunk."""

import signal
import threading
from typing import Any


class Interrupts:
    """
    A context within which the first Ctrl-C is noted; the second is an exception as ever. Entered
    again within itself, it is the same. Only the main thread gets signals: elsewhere nothing is
    noted.
    """

    def __init__(self) -> None:
        self.is_asked_to_stop = False
        self._before: Any = None
        self._depth = 0

    def __enter__(self) -> "Interrupts":
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _note(self, number: int, frame: Any) -> None:
        self.is_asked_to_stop = True
        signal.signal(signal.SIGINT, self._before)
