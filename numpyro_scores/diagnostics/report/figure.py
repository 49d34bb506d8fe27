# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The figure of a report."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numpyro_scores.diagnostics.arviz.panels import chain_colors, show_ranks, show_trace
from numpyro_scores.diagnostics.report import kinds
from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.elements import Elements
from numpyro_scores.diagnostics.report.reports import Report
from numpyro_scores.diagnostics.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by their marks too, and readable on white.
COLORS = {"fine": "#2a7f62", "fault": "#c0392b", "unknown": "#7d838c"}
SHADE = "#f9e4e1"
# Ratios beyond are drawn at the edge.
LARGEST_RATIO = 100.0


class Panels(NamedTuple):
    """
    - **r_hat**, **bulk** - of the elements that were looked at, shape `(k,)`.
    - **name**, **draws** - of the worst, draws of shape `(chains, draws)`.
    - **wanted** - effective sample size.
    """

    r_hat: np.ndarray
    bulk: np.ndarray
    name: str
    draws: np.ndarray
    wanted: int


def panels_of(run: Run, elements: Elements | None) -> Panels | None:
    """What the figure needs of the elements; None if there are none."""
    # Particles are no chain, and have no trace.
    if elements is None or not elements.names or run.particles is not None:
        return None
    one_chain = len(elements.draws) == 1
    worst = int(np.argmin(elements.bulk) if one_chain else np.argmax(elements.r_hat))
    draws = elements.draws[:, :, worst].copy()
    wanted = at.ess_of(len(draws), draws.size, kinds.has_independent_draws(run))
    return Panels(elements.r_hat, elements.bulk, elements.names[worst], draws, wanted)


def figure_of(report: Report, panels: Panels | None, with_title: bool = True) -> "Figure":
    """Verdicts on the left; on the right elements, ranks and a trace."""
    from matplotlib.figure import Figure

    height = max(6.0, 0.42 * len(report.lines) + 1.6)
    figure = Figure(figsize=(13.0, height), layout="constrained")
    if with_title:
        # Text as it is: a dollar in the name of a site is no formula.
        figure.suptitle(
            f"{report.title}\n{report.verdict}", x=0.01, ha="left", fontsize=12, parse_math=False
        )
    if panels is None:
        _show_verdicts(figure.subplots(), report)
        return figure
    grid = figure.add_gridspec(2, 3, width_ratios=(1.25, 1, 1))
    _show_verdicts(figure.add_subplot(grid[:, 0]), report)
    _show_elements(figure.add_subplot(grid[0, 1]), panels)
    colors = chain_colors(len(panels.draws))
    ranks = figure.add_subplot(grid[0, 2])
    show_ranks(ranks, panels.draws, colors)
    ranks.set_title(f"Ranks of {panels.name}", fontsize=10, loc="left", parse_math=False)
    ranks.set_xlabel("Rank among the draws of all chains")
    trace = figure.add_subplot(grid[1, 1:])
    show_trace(trace, panels.draws, colors)
    trace.set_title(
        f"Trace of {panels.name}, the worst element", fontsize=10, loc="left", parse_math=False
    )
    trace.set_xlabel("Draw")
    if len(colors) <= 8:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderpad": 0.0}
        trace.legend(ncols=len(colors), fontsize=8, frameon=False, **place)
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _show_verdicts(ax: "Axes", report: Report) -> None:
    """How each diagnostic stands to its threshold, 1; the first on top."""
    ax.set_xscale("log")
    low, high = 1 / LARGEST_RATIO, LARGEST_RATIO
    ax.axvspan(1, 2 * high, color=SHADE, lw=0, zorder=0)
    ax.axvline(1, color="black", lw=0.8, ls="--")
    for row, line in enumerate(report.lines):
        color = COLORS[line.status]
        ax.axhline(row, color="#e3e5e8", lw=0.8, zorder=0)
        if line.status == "unknown":
            box = {"fc": "white", "ec": "none", "pad": 2.0}
            ax.text(1, row, "?", color=color, weight="bold", ha="center", va="center", bbox=box)
        else:
            ratio = float(np.clip(low if line.ratio is None else line.ratio, low, high))
            ax.plot([low / 2, ratio], [row, row], color=color, lw=2.5, solid_capstyle="butt")
            ax.plot(ratio, row, marker="X" if line.faults else "o", color=color, ms=9, mec="white")
    ax.set_yticks(range(len(report.lines)), [line.title for line in report.lines])
    for label, line in zip(ax.get_yticklabels(), report.lines, strict=True):
        label.set_color(COLORS[line.status])
        label.set_parse_math(False)
        label.set_fontweight("bold" if line.faults else "normal")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(report.lines) - 0.5, -0.5)
    ax.set_xlim(low / 2, 2 * high)
    ax.set_xticks([low, 0.1, 1, 10, high], ["0.01", "0.1", "1", "10", "100"])
    ax.minorticks_off()
    ax.set_xlabel("Measured / threshold")
    ax.set_title("Shaded: beyond a threshold", fontsize=10, loc="left")


def _show_elements(ax: "Axes", panels: Panels) -> None:
    """R-hat against bulk ESS; of one chain the sorted ESS alone."""
    wanted = panels.wanted
    excess_wanted = at.r_hat_of(*panels.draws.shape, len(panels.bulk)) - 1
    if len(panels.draws) == 1:
        ax.plot(np.sort(panels.bulk), "o", ms=4, color="#31688e", alpha=0.6)
        ax.axhspan(0, wanted, color=SHADE, lw=0, zorder=0)
        ax.set_title("Bulk ESS of the elements, sorted", fontsize=10, loc="left")
        ax.set_ylim(0, max(1.1 * panels.bulk.max(), 1.5 * wanted))
        ax.set_xlabel("Element")
        return
    excess = np.clip(panels.r_hat - 1, 1e-4, 10)
    bulk = np.clip(panels.bulk, 1, None)
    ax.loglog(bulk, excess, "o", ms=5, color="#31688e", alpha=0.6, mec="none")
    left, right = min(bulk.min(), wanted) / 2, max(bulk.max(), wanted) * 2
    bottom, top = 5e-5, max(excess.max(), excess_wanted) * 4
    ax.axvspan(left, wanted, color=SHADE, lw=0, zorder=0)
    ax.axhspan(excess_wanted, top, color=SHADE, lw=0, zorder=0)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ticks = [t for t in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0) if t <= top]
    ax.set_yticks(ticks, [f"{1 + t:g}" for t in ticks])
    ticks = [t for t in np.outer([1, 2, 5], 10.0 ** np.arange(9)).flat if left <= t <= right]
    ax.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel("Bulk ESS")
    ax.set_title("R-hat of each element", fontsize=10, loc="left")
