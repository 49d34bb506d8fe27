# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether the last Metropolis steps of an approximate kernel were still moving its draws."""

import numpy as np

from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.reports import Fault, Line
from numpyro_scores.diagnostics.report.runs import Run

STANDARD_ERRORS = 4


def check_correction(run: Run) -> Line | None:
    """By how much they raised the log density: 0 on average, of exact draws."""
    rises = run.fields.get("correction")
    if rises is None or not np.size(rises):
        return None
    title, rises = "correction", np.asarray(rises, float)
    if not np.all(np.isfinite(rises)):
        return Line(title, "unknown", "a draw had no density before its Metropolis steps")
    mean = float(rises.mean())
    error = float(rises.std() / np.sqrt(rises.size))
    text = f"Metropolis steps raised the log density of the draws by {mean:+.2f} +- {error:.2g}"
    ratio = abs(mean) / max(at.LARGEST_CORRECTION, STANDARD_ERRORS * error)
    if ratio <= 1:
        return Line(title, "fine", f"{text} nats", ratio=ratio)
    advice = (
        "The draws were of another density before these steps, and nothing says that so many were "
        "enough: twice the num_corrections should not change the draws any more; or more "
        "num_levels, or NoiseLevelSMC(model), which has no such bias."
    )
    fault = Fault("approximate_draws", "all draws", mean, at.LARGEST_CORRECTION, advice)
    return Line(title, "fault", f"{text} nats (0 of exact draws)", (fault,), ratio)
