# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Rows of a table in a file, so that a run that is cut goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Rows:
    """
    Rows of figures by name, a line of JSON each.

    :param path: the file, which need not be there.
    """

    def __init__(self, path: Path):
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._rows: dict[str, dict] = dict(json.loads(line) for line in lines)

    def get(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of this name, measured and written now if it is not there."""
        if name not in self._rows:
            row = measure()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps([name, row]) + "\n")
            self._rows[name] = row
        return self._rows[name]
