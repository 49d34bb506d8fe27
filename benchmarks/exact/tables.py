# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Cells as lines of text, and all of them in one figure."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exact.problems import EXACT, Cell, Row

# Rows by the name of the set and that of the cell.
Results = Mapping[str, Mapping[str, list[Row]]]
NUM_COLOURS, WIDTH = 10, 49


def head(cell: Cell, first: Row) -> str:
    """What stands above the rows of a cell; in brackets are standard errors over its problems."""
    num = len(cell.problems)
    title = f"{cell.name}: {num} problem{'s' if num > 1 else ''}"
    return f"{title}\n  {'':{WIDTH}}" + "".join(
        f"{name:>{len(name) + 4}}" for name in first.figures
    )


def line(row: Row, first: Row) -> str:
    texts = [f"{_cell(row, name):>{len(name) + 4}}" for name in first.figures]
    method = f"{row.method} (published)" if row.is_published else row.method
    cost = "" if np.isnan(row.num_evals) else f"   {row.num_evals:,.0f} evaluations a draw"
    if not row.is_published:
        cost += f"   {row.num_draws} draws, {row.cpu_seconds:.0f} s"
    return f"  {method:{WIDTH}}" + "".join(texts) + cost


def _cell(row: Row, name: str) -> str:
    if name not in row.figures:  # a paper that reports another figure
        return ""
    error = row.errors[name]
    return f"{row.figures[name]:.3f}" + ("" if np.isnan(error) else f" ({error:.3f})")


def seconds(results: Results) -> str:
    """What all rows have taken, those of earlier runs that are kept included."""
    rows = [row for cells in results.values() for rows in cells.values() for row in rows]
    cpu, wall = (
        sum(getattr(row, name) for row in rows) for name in ("cpu_seconds", "wall_seconds")
    )
    cells = sum(len(cells) for cells in results.values())
    return f"{cells} cells, {cpu:.0f} s of CPU, {wall:.0f} s by the clock"


def save(results: Results, path: Path) -> None:
    """Write results, or those of some sets, to be read by :func:`kept`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        name: {cell: [row._asdict() for row in rows] for cell, rows in cells.items()}
        for name, cells in results.items()
    }
    path.write_text(json.dumps(rows, indent=1))


def kept(path: Path) -> dict[str, dict[str, list[Row]]]:
    """The results of earlier runs; none if there is no such file."""
    if not path.exists():
        return {}
    return {
        name: {cell: [Row(**row) for row in rows] for cell, rows in cells.items()}
        for name, cells in json.loads(path.read_text()).items()
    }


def figure(results: Results, path: Path) -> None:
    """The first figure of every cell: a panel for each set, a row for each cell."""
    from matplotlib import pyplot as plt

    heights = [len(cells) + 1.5 for cells in results.values()]
    fig, panels = plt.subplots(
        len(results),
        1,
        figsize=(9.0, 0.42 * sum(heights) + 1),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    methods = dict.fromkeys(
        row.method
        for cells in results.values()
        for rows in cells.values()
        for row in rows
        if not row.is_published and row.method != EXACT
    )
    colours = {name: f"C{i % NUM_COLOURS}" for i, name in enumerate(methods)}
    handles: dict[str, Any] = {}
    for panel, cells in zip(panels[:, 0], results.values(), strict=True):
        first = next(iter(next(iter(cells.values()))[0].figures))
        for i, rows in enumerate(cells.values()):
            for row in rows:
                if first not in row.figures:
                    continue
                label, style = row.method, {"marker": "o", "color": colours.get(row.method)}
                if row.method == EXACT:
                    style = {"marker": "|", "color": "black", "markersize": 14}
                elif row.is_published:
                    label, style = "published", {"marker": "x", "color": "0.45"}
                (line,) = panel.plot(
                    row.figures[first], i, linestyle="none", alpha=0.85, label=label, **style
                )
                handles.setdefault(label, line)
        panel.set_yticks(range(len(cells)), list(cells), fontsize=7)
        panel.set_ylim(len(cells) - 0.5, -0.5)
        if "dB" in first:
            panel.set_xscale("symlog", linthresh=0.3)
        else:
            panel.set_xlim(left=0)
        panel.set_xlabel(first, fontsize=8)
        panel.grid(axis="x", color="0.9")
    fig.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=130)
    plt.close(fig)
