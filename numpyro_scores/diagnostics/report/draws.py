# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Draws that are as good as independent, where a model looks at them."""

import numpy as np

from numpyro_scores.diagnostics.report.elements import Elements
from numpyro_scores.diagnostics.report.runs import Run


def num_independent(run: Run, elements: Elements) -> float:
    """Half of the effective number: evenly spaced they are as good as independent."""
    if run.particles is not None:
        # Half of the lines of descent: they are not of one length.
        return float(run.particles["num_ancestors"]) / 2
    return float(np.nanmin(np.minimum(elements.bulk, elements.tail))) / 2


def thinned(draws: np.ndarray, chains: np.ndarray, num: int) -> np.ndarray:
    """`num` draws at most, evenly spaced, of these chains one after the other."""
    total = len(chains) * draws.shape[1]
    chosen = np.arange(0, total, -(-total // num))
    return draws[chains[chosen // draws.shape[1]], chosen % draws.shape[1]]
