# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What warmup has learned of the directions of a posterior."""

from collections.abc import Iterator

import numpy as np

from numpyro_scores.diagnostics.report.reports import Line
from numpyro_scores.diagnostics.report.runs import Run
from numpyro_scores.infer.low_rank import LowRankRoot


def check_metric(run: Run) -> Iterator[Line]:
    """The directions of a metric of low rank, and whether there is room for more."""
    for part in run.parts:
        root = getattr(getattr(part.state, "adapt_state", None), "inverse_mass_matrix", None)
        if not isinstance(root, LowRankRoot):
            continue
        stretch = np.asarray(root.stretch)
        rank = stretch.shape[-1]
        stretch = stretch.reshape(-1, rank)
        counts = np.sum(stretch != 1, axis=1)
        least, most = counts.min(), counts.max()
        number = f"{most}" if least == most else f"{least} to {most}"
        text = f"low rank, {number} of {rank} directions"
        if most:
            text += (
                f", {np.min(stretch):.2g} to {np.max(stretch):.2g} times as wide as the diagonal "
                "says"
            )
        if most == rank and rank < root.scale.shape[-1]:
            text += f"; all are taken: LowRank({2 * rank}) may learn more"
        yield Line("metric", "fine", text, ratio=0.0)
