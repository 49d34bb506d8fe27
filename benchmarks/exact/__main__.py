# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Every published exact posterior, and every sampler beside it: `python -m benchmarks.exact`.

Each row is printed as soon as it is there; what is published stands below. A reference that
cannot be had is an error. `--full` takes the papers' sizes, which is hours. Cells are kept in a
file, of which the figure is made: sets may be run one by one.
"""

import argparse
from pathlib import Path

from benchmarks._arguments import count
from benchmarks.exact import discrete, finite_points, interacting, levy, mixture, mueller_brown
from benchmarks.exact.problems import Cell, Programs, run_cell
from benchmarks.exact.tables import figure, head, kept, line, save, seconds

SETS = {
    "mixture": mixture,
    "interacting": interacting,
    "levy": levy,
    "points": finite_points,
    "mueller_brown": mueller_brown,
    "discrete": discrete,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--samplers", nargs="*", help="columns; all of a set by default")
    parser.add_argument("--cells", nargs="*", help="only cells whose name has one of these in it")
    parser.add_argument("--full", action="store_true", help="the papers' sizes")
    parser.add_argument("--problems", type=count, help="of each cell at most")
    parser.add_argument("--draws", type=count, help="of each sampler, for each problem")
    parser.add_argument("--results", type=Path, default=Path(".cache/exact.json"))
    parser.add_argument("--fresh", action="store_true", help="forget the cells of earlier runs")
    parser.add_argument("--figure", type=Path, default=Path(".cache/exact.png"))
    args = parser.parse_args()
    chosen = _chosen(args)
    results = {} if args.fresh else kept(args.results)
    for name, cells in chosen.items():
        programs = Programs()
        print(f"\n## {name}\n{SETS[name].__doc__}", flush=True)
        for whole in cells:
            cell, rows = _cut(whole, args.problems, args.draws), []
            for row in run_cell(cell, programs, args.samplers):
                if not rows:
                    print(head(cell, row))
                rows.append(row)
                print(line(row, rows[0]), flush=True)
            found = results.setdefault(name, {})
            # What was measured of other samplers stays.
            before = found.get(cell.name, []) if args.samplers else []
            found[cell.name] = list(({row.method: row for row in [*before, *rows]}).values())
            save(results, args.results)
    figure(results, args.figure)
    print(f"\n{seconds(results)}\n{args.figure}")


def _chosen(args: argparse.Namespace) -> dict[str, list[Cell]]:
    """
    The cells that are asked for, by set.

    :raises SystemExit: if some name is that of no cell, or of no sampler of these, before any runs.
    """
    cells = {name: list(SETS[name].cells(args.full)) for name in args.sets}
    every = [cell for of_set in cells.values() for cell in of_set]
    parts = args.cells or [""]
    if missing := [part for part in parts if not any(part in cell.name for cell in every)]:
        raise SystemExit(
            f"No cell has any of {missing} in its name, but there are: "
            f"{'; '.join(cell.name for cell in every)}."
        )
    chosen = {
        name: [cell for cell in of_set if any(part in cell.name for part in parts)]
        for name, of_set in cells.items()
    }
    names = {sampler for of_set in chosen.values() for cell in of_set for sampler in cell.samplers}
    if unknown := set(args.samplers or ()) - names:
        raise SystemExit(f"No cell has the samplers {sorted(unknown)}, but {sorted(names)}.")
    return {name: of_set for name, of_set in chosen.items() if of_set}


def _cut(cell: Cell, num_problems: int | None, num_draws: int | None) -> Cell:
    """A cell of fewer problems, or of another number of draws for all samplers."""
    cell = cell._replace(problems=cell.problems[:num_problems])
    return cell if num_draws is None else cell._replace(num_draws=num_draws, draws_of={})


if __name__ == "__main__":
    main()
