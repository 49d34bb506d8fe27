# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Looking at a score, and at what a run drew: numbers, ArviZ objects, figures. ArviZ and Matplotlib
load on first use."""

from numpyro_scores.conservativeness import Conservativeness, conservativeness
from numpyro_scores.diagnostics.arviz_bridge import to_inference_data
from numpyro_scores.diagnostics.figures import plot_posterior_images, plot_trace_rank

__all__ = [
    "Conservativeness",
    "conservativeness",
    "plot_posterior_images",
    "plot_trace_rank",
    "to_inference_data",
]
