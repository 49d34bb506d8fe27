# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a sampler of particles says of its run: their draws are no chain."""

from collections.abc import Iterator

import numpy as np

from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.reports import Fault, Line
from numpyro_scores.diagnostics.report.runs import Run

MORE = "Take more particles (num_particles), or more moves in each round (num_steps)."


def check_particles(run: Run) -> Iterator[Line]:
    """Lines of descent, the smallest effective sample size, moves, and the evidence."""
    known = run.particles
    assert known is not None
    ancestors, particles = int(known["num_ancestors"]), run.num_draws
    text = f"{ancestors:,} for {particles:,} particles"
    yield _line("lines of descent", "few_ancestors", text, ancestors, at.ESS_OF_INDEPENDENT, MORE)
    ess = float(known["smallest_ess"])
    text = f"{ess:,.0f} at least, of all rounds ({at.SMALLEST_PARTICLE_ESS} wanted)"
    yield _line("ESS of the rounds", "particle_ess", text, ess, at.SMALLEST_PARTICLE_ESS, MORE)
    accept = float(known["smallest_accept_prob"])
    text = f"{accept:.2f} at least, of all rounds"
    advice = "Particles hardly move in that round: more moves (num_steps), or more particles."
    yield _line("acceptance", "low_acceptance", text, accept, at.SMALLEST_ACCEPTANCE, advice)
    error = float(known["log_evidence_error"])
    text = f"{float(known['log_evidence']):.2f} +- {error:.2g}"
    if error <= at.LARGEST_EVIDENCE_ERROR:
        ratio = error / at.LARGEST_EVIDENCE_ERROR
        yield Line("log evidence", "fine", text, ratio=ratio)
        return
    fault = Fault("evidence_error", "all particles", error, at.LARGEST_EVIDENCE_ERROR, MORE)
    text += f" ({at.LARGEST_EVIDENCE_ERROR:g} nat at most wanted)"
    yield Line("log evidence", "fault", text, (fault,), error / at.LARGEST_EVIDENCE_ERROR)


def _line(title: str, name: str, text: str, measured: float, wanted: float, advice: str) -> Line:
    """A line on a number that should be large."""
    if not np.isfinite(measured):
        return Line(title, "unknown", "it is not known")
    ratio = wanted / max(measured, 1e-6)
    if ratio <= 1:
        return Line(title, "fine", text, ratio=ratio)
    fault = Fault(name, "all particles", float(measured), float(wanted), advice)
    return Line(title, "fault", text, (fault,), ratio)
