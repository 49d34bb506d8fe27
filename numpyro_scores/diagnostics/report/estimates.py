# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A table of what was estimated, with how well it is known."""

from typing import NamedTuple

import numpy as np

from numpyro_scores.diagnostics.report.elements import Elements
from numpyro_scores.diagnostics.report.runs import Run

MAX_ROWS = 20


class ElementSummary(NamedTuple):
    """
    - **name** - such as `"x[3]"`.
    - **mean**, **sd** - of all draws of the chains that are finite.
    - **low**, **high** - the 5% and the 95% quantile.
    - **mcse** - Monte Carlo standard error of the mean.
    - **bulk_ess**, **tail_ess** - effective sample sizes.
    - **r_hat** - NaN with one chain.
    """

    name: str
    mean: float
    sd: float
    low: float
    high: float
    mcse: float
    bulk_ess: float
    tail_ess: float
    r_hat: float


def summaries_of(run: Run, elements: Elements | None) -> tuple[ElementSummary, ...]:
    """
    The first 20 elements, or of more the 20 that stand worst, in their order. The draws of
    particles are no chain: they have no effective sample size.
    """
    if elements is None or not elements.names:
        return ()
    worst = np.argsort(elements.bulk, kind="stable")[:MAX_ROWS]
    draws = elements.draws.reshape(-1, len(elements.names))
    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    of_chains = np.stack([elements.mcse * sd, elements.bulk, elements.tail, elements.r_hat])
    if run.particles is not None:
        of_chains = np.full_like(of_chains, np.nan)
    return tuple(
        ElementSummary(
            elements.names[i], mean[i], sd[i], low[i], high[i], *of_chains[:, i].tolist()
        )
        for i in np.sort(worst)
    )
