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
    parser.add_argument("--problems", type=int, help="of each cell at most")
    parser.add_argument("--draws", type=int, help="of each sampler, for each problem")
    parser.add_argument("--results", type=Path, default=Path(".cache/exact.json"))
    parser.add_argument("--fresh", action="store_true", help="forget the cells of earlier runs")
    parser.add_argument("--figure", type=Path, default=Path(".cache/exact.png"))
    args = parser.parse_args()
    results, names = {} if args.fresh else kept(args.results), set()
    for name in args.sets:
        programs = Programs()
        print(f"\n## {name}\n{SETS[name].__doc__}", flush=True)
        for cell in SETS[name].cells(args.full):
            if args.cells and not any(part in cell.name for part in args.cells):
                continue
            names |= set(cell.samplers)
            cell, rows = _cut(cell, args.problems, args.draws), []
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
    if not names:
        raise SystemExit(f"No cell has any of {args.cells} in its name.")
    if unknown := set(args.samplers or ()) - names:
        raise SystemExit(f"No cell has the samplers {sorted(unknown)}, but {sorted(names)}.")
    figure(results, args.figure)
    print(f"\n{seconds(results)}\n{args.figure}")


def _cut(cell: Cell, num_problems: int | None, num_draws: int | None) -> Cell:
    """A cell of fewer problems, or of another number of draws for all samplers."""
    cell = cell._replace(problems=cell.problems[:num_problems])
    return cell if num_draws is None else cell._replace(num_draws=num_draws, draws_of={})


if __name__ == "__main__":
    main()
