# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A report as one page of HTML: words, a table of faults, and the figure inside."""

from base64 import b64encode
from html import escape
from io import BytesIO

import numpy as np

import numpyro_scores.version
from numpyro_scores.diagnostics.report.reports import Line, Report

# All of it within one class, so that a notebook keeps its own look.
STYLE = """
.numpyro-scores { color-scheme: light dark; --ink: #1d2126; --faint: #5d646e; --paper: #ffffff;
  --rule: #d9dde2; --fine: #1f6f54; --fault: #b3261e; --unknown: #5d646e; }
@media (prefers-color-scheme: dark) { .numpyro-scores { --ink: #e7e9ec; --faint: #a3abb5;
  --paper: #16191d; --rule: #363c44; --fine: #6fcfa8; --fault: #ff8f86; --unknown: #a3abb5; } }
.numpyro-scores { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
.numpyro-scores h1 { font-size: 1.35rem; margin-bottom: 0; }
.numpyro-scores h2 { font-size: 1.1rem; margin-top: 2rem; }
.numpyro-scores .verdict { font-size: 1.1rem; margin-top: .25rem; }
.numpyro-scores table { border-collapse: collapse; width: 100%; font-size: 1rem; }
.numpyro-scores th, .numpyro-scores td { border-top: 1px solid var(--rule); background: none;
  padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top; white-space: normal; }
.numpyro-scores .numbers td + td, .numpyro-scores .numbers th + th { text-align: right;
  font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) { .numpyro-scores .numbers { display: block; overflow-x: auto; } }
.numpyro-scores .fine { color: var(--fine); }
.numpyro-scores .fault { color: var(--fault); font-weight: 600; }
.numpyro-scores .unknown { color: var(--unknown); }
.numpyro-scores .advice { color: var(--faint); margin: .25rem 0 0; }
/* The figure is drawn on white, whatever the page is. */
.numpyro-scores img { background: #ffffff; border-radius: .5rem; height: auto; max-width: 100%; }
.numpyro-scores footer { border-top: 1px solid var(--rule); color: var(--faint); margin-top: 2rem; }
"""
PAGE_STYLE = """
body { margin: 0; background: #ffffff; }
@media (prefers-color-scheme: dark) { body { background: #16191d; } }
"""
WORDS = {"fine": "fine", "fault": "fault", "unknown": "not known"}


def page_of(report: Report) -> str:
    """A whole page; all text is escaped."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Diagnosis of {escape(report.title)}</title>
<style>{PAGE_STYLE}</style>
</head>
<body>
{fragment_of(report)}
</body>
</html>
"""


def fragment_of(report: Report) -> str:
    """The part of a page that a notebook shows, with its style."""
    from numpyro_scores.diagnostics.report.figure import figure_of

    buffer = BytesIO()
    # The title stands above.
    figure_of(report, report._panels, with_title=False).savefig(buffer, format="png", dpi=110)
    image = b64encode(buffer.getvalue()).decode("ascii")
    rows = "\n".join(map(_row, report.lines))
    verdict = "fault" if report.faults else "fine"
    return f"""<div class="numpyro-scores">
<style>{STYLE}</style>
<h1>{escape(report.title)}</h1>
<p class="verdict {verdict}">{escape(report.verdict)}</p>
<img src="data:image/png;base64,{image}" alt="Each diagnostic beside its threshold; R-hat and \
effective sample size of the elements; ranks and trace of the worst">
<h2>Diagnostics</h2>
<table>
<thead><tr><th>What</th><th>Is</th><th>Because</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
{_faults(report)}{_estimates(report)}<footer><p>numpyro-scores \
{escape(numpyro_scores.version.__version__)}</p></footer>
</div>"""


def _row(line: Line) -> str:
    advice = "".join(
        f'<p class="advice">{escape(text)}</p>'
        for text in dict.fromkeys(fault.advice for fault in line.faults)
    )
    return (
        f"<tr><td>{escape(line.title)}</td>"
        f'<td class="{line.status}">{WORDS[line.status]}</td>'
        f"<td>{escape(line.text)}{advice}</td></tr>"
    )


def _faults(report: Report) -> str:
    if not report.faults:
        return ""
    rows = "\n".join(
        f"<tr><td>{escape(fault.name)}</td><td>{escape(fault.where)}</td>"
        f"<td>{fault.measured:.4g}</td><td>{fault.threshold:.4g}</td></tr>"
        for fault in report.faults
    )
    return f"""<h2>Faults</h2>
<table>
<thead><tr><th>Name</th><th>Where</th><th>Measured</th><th>Threshold</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
"""


def _estimates(report: Report) -> str:
    if not report.estimates:
        return ""
    heads = ("Element", "Mean", "SD", "5%", "95%", "MCSE", "Bulk ESS", "Tail ESS", "R-hat")
    rows = "\n".join(
        "<tr>"
        + f"<td>{escape(element.name)}</td>"
        + "".join(f"<td>{_number(x, '.3g')}</td>" for x in element[1:6])
        + "".join(f"<td>{_number(x, ',.0f')}</td>" for x in element[6:8])
        + f"<td>{_number(element.r_hat, '.3f')}</td></tr>"
        for element in report.estimates
    )
    return f"""<h2>Estimates</h2>
<table class="numbers">
<thead><tr>{"".join(f"<th>{head}</th>" for head in heads)}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
"""


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else ""
