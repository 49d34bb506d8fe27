# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What `diagnose` has found, in words, as a figure and as a page."""

from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

from numpyro_scores.diagnostics.report.estimates import ElementSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 100


@dataclass(frozen=True)
class Fault:
    """
    - **name** - of the fault, such as `"r_hat"`.
    - **where** - the site and its index, or the chains: `"x[3]"`, `"chain 2"`.
    - **measured** - what was measured.
    - **threshold** - from where on it is a fault.
    - **advice** - what to do next.
    """

    name: str
    where: str
    measured: float
    threshold: float
    advice: str


@dataclass(frozen=True)
class Line:
    """
    One diagnostic.

    - **title** - what was looked at.
    - **status** - `"fine"`, `"fault"`, or `"unknown"` if it cannot be told.
    - **text** - what was found; if it cannot be told, why, and what to do.
    - **faults** - one or more if the status is `"fault"`, else none.
    - **ratio** - what was measured over its threshold, such that more than 1 is a fault; None where
      that means nothing.
    """

    title: str
    status: Literal["fine", "fault", "unknown"]
    text: str
    faults: tuple[Fault, ...] = ()
    ratio: float | None = None


@dataclass(frozen=True)
class Report:
    """
    What :func:`~numpyro_scores.diagnose` returns: `print(report)` for words, `report.plot()` for a
    figure, `report.to_html(path)` for both; a notebook shows it as it is.

    - **title** - what was looked at.
    - **lines** - one for each diagnostic, as :class:`Line`.
    - **estimates** - mean, quantiles, errors and effective sample sizes of the elements, of many
      of the 20 that stand worst, as :class:`ElementSummary`.
    """

    title: str
    lines: tuple[Line, ...]
    _panels: Any = field(repr=False, compare=False)
    estimates: tuple[ElementSummary, ...] = field(default=(), repr=False, compare=False)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that is not as it should be, as :class:`Fault`; empty if nothing is."""
        return tuple(fault for line in self.lines for fault in line.faults)

    @property
    def verdict(self) -> str:
        """The report in a sentence."""
        unknown = sum(line.status == "unknown" for line in self.lines)
        text = {0: "No fault found", 1: "1 fault"}.get(
            len(self.faults), f"{len(self.faults)} faults"
        )
        if unknown:
            text += f"; {unknown} of {len(self.lines)} diagnostics cannot be told"
        return f"{text}."

    def __str__(self) -> str:
        marks = {"fine": "  fine   ", "fault": "  FAULT  ", "unknown": "  ?      "}
        width = max(len(line.title) for line in self.lines)
        rows, said = [self.title, self.verdict, ""], set()
        for line in self.lines:
            indent = " " * (9 + width + 2)
            head = f"{marks[line.status]}{line.title:<{width}}  "
            rows += wrap(line.text, WIDTH, initial_indent=head, subsequent_indent=indent)
            for advice in dict.fromkeys(fault.advice for fault in line.faults):
                if advice in said:
                    continue
                said.add(advice)
                rows += wrap(
                    advice, WIDTH, initial_indent=f"{indent}-> ", subsequent_indent=f"{indent}   "
                )
        return "\n".join(rows)

    def plot(self) -> "Figure":
        """
        How each diagnostic stands to its threshold; R-hat and bulk ESS of all elements; and of the
        element with the largest R-hat (with one chain, the smallest ESS) the trace and the ranks.

        :return: a `matplotlib.figure.Figure`; write it with `figure.savefig(path)`.
        """
        from numpyro_scores.diagnostics.report.figure import figure_of

        return figure_of(self, self._panels)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from numpyro_scores.diagnostics.report.page import fragment_of

        return fragment_of(self)

    def to_html(self, path: str | Path) -> None:
        """
        Write the report and its figure as one page that needs no other file and no network.

        :param path: of the file, which is replaced if it is there.
        """
        from numpyro_scores.diagnostics.report.page import page_of

        Path(path).write_text(page_of(self), encoding="utf-8")
