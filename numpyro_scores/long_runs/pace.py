# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How many steps the device is given at a time."""

import time

# A chunk is what Ctrl-C waits for, and what a kill costs.
SECONDS = 2.0
FEWEST_STEPS = 16


class Pace:
    """
    Pieces of about two seconds each, from the speed of those before: a draw may take a microsecond
    or a minute. Of the draws themselves nothing depends on where they are cut.
    """

    def __init__(self) -> None:
        self._steps = FEWEST_STEPS
        self._last = time.monotonic()

    def finished(self, num_steps: int) -> None:
        """A piece of so many steps is done."""
        now = time.monotonic()
        took, self._last = now - self._last, now
        if num_steps >= self._steps // 2:
            # The first piece compiles: it may grow fast, and shrink only if it is much too long.
            wanted = int(num_steps * SECONDS / max(took, 1e-6))
            self._steps = max(1, min(wanted, 8 * num_steps))

    @property
    def num_steps(self) -> int:
        return self._steps

    @num_steps.setter
    def num_steps(self, number: int) -> None:
        self._steps = number
