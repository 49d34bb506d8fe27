# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The tables and the picture of the page on families, from the files of a run::

    python -m benchmarks.families.table families --picture docs/families.png
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.families.files import NAMES, file_of, held_out_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    "seconds to train",
    "log likelihood",
    "how",
    "told apart",
    "precision",
    "recall",
    "error",
    "coverage",
    "ms a draw",
)
BLUE, NUM_COLUMNS = "#0072B2", 6


def load(folder: Path, data: str) -> list[dict]:
    """The rows of a data set, in the order of the families."""
    paths = [file_of(folder, data, family) for family in NAMES]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def cells(row: dict) -> list[str]:
    found, quality, posterior = row["likelihoods"], row["quality"], row["posterior"]
    first = found[0] if found else None
    return [
        f"{row['seconds']['training']:.0f}",
        f"{first['value']:.2f} ± {first['standard_error']:.2f}" if first else "none",
        first["how"] if first else "",
        f"{quality['accuracy']:.2f}",
        f"{quality['precision']:.2f}",
        f"{quality['recall']:.2f}",
        f"{posterior['error']:.2f}",
        f"{posterior['coverage']:.2f} ± {posterior['coverage_error']:.2f}",
        f"{1e3 * posterior['seconds_a_draw']:.2f}",
    ]


def table(rows: list[dict]) -> str:
    lines = [
        "| family |" + "".join(f" {name} |" for name in COLUMNS),
        "|---|" + "".join("---|" if name == "how" else "---:|" for name in COLUMNS),
    ]
    body = [f"| {row['family']} | " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join([*lines, *body])


def others(rows: list[dict]) -> str:
    """The likelihoods beside the first, in words."""
    return "\n".join(
        f"{row['family']}: "
        + "; ".join(
            f"{one['how']} {one['value']:.2f} ± {one['standard_error']:.2f}"
            for one in row["likelihoods"]
        )
        for row in rows
        if len(row["likelihoods"]) > 1
    )


def tiles(pictures: np.ndarray, side: int) -> np.ndarray:
    """So many pictures of 8 x 8 along each side, with a line between them."""
    framed = np.pad(pictures[: side**2].reshape(-1, 8, 8), ((0, 0), (0, 1), (0, 1)))
    rows = framed.reshape(side, side, 9, 9).swapaxes(1, 2)
    return rows.reshape(9 * side, 9 * side)[:-1, :-1]


def draw(folder: Path) -> "Figure":
    from matplotlib.figure import Figure

    sets = {}
    for name in ("moons", "digits"):
        families = {
            row["family"]: file_of(folder, name, row["family"]) for row in load(folder, name)
        }
        drawn = {family: np.load(path.with_suffix(".npy")) for family, path in families.items()}
        sets[name] = {"held out": np.load(held_out_of(folder, name)), **drawn}
    num_rows = -(-max(map(len, sets.values())) // NUM_COLUMNS)
    size = (1.9 * NUM_COLUMNS, 4.2 * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2 * num_rows, NUM_COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for offset, name in enumerate(sets):
        for place, (family, drawn) in enumerate(sets[name].items()):
            axis = axes[2 * (place // NUM_COLUMNS) + offset, place % NUM_COLUMNS]
            axis.set_axis_on()
            axis.set(xticks=[], yticks=[], aspect="equal")
            if name == "moons":
                axis.plot(*drawn[:1_000].T, ".", markersize=1.5, color=BLUE)
                axis.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3))
                axis.set_title(family.replace(", ", ",\n"), fontsize=9)
            else:
                axis.imshow(tiles(drawn, 5), cmap="gray", vmin=-1, vmax=1)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--picture", type=Path, help="where to write it")
    options = parser.parse_args()
    for name in ("moons", "digits"):
        rows = load(options.folder, name)
        seconds = sum(sum(row["seconds"].values()) for row in rows)
        print(f"{name}: {len(rows)} families, {seconds:.0f} s of CPU\n\n{table(rows)}\n")
        print(f"{others(rows)}\n")
    if options.picture:
        from PIL import Image

        path = options.picture
        draw(options.folder).savefig(path, dpi=100)
        with Image.open(path) as drawn:
            drawn.convert("RGB").quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    main()
