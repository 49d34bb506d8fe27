# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Corners of a posterior in which a chain hardly moves, and so hardly gets into them."""

import numpy as np

from numpyro_scores.diagnostics.report import kinds
from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.elements import Elements
from numpyro_scores.diagnostics.report.reports import Fault, Line
from numpyro_scores.diagnostics.report.runs import Run

TITLE = "moves in corners"


def check_corners(run: Run, elements: Elements) -> Line | None:
    """
    Whether a chain that makes a Metropolis test moves as often in the extreme twentieth of each
    element as elsewhere. In the neck of a funnel, where a noise scale is small, steps of one length
    are refused nearly always: R-hat and ESS know only of what was reached, and that was too little
    (Betancourt & Girolami 2013). None for kernels that refuse nothing.
    """
    # Those that are looked at tell whether a draw is another one.
    moves = np.any(elements.draws[:, 1:] != elements.draws[:, :-1], axis=-1)
    if kinds.has_independent_draws(run) or run.particles is not None or moves.mean() > 0.999:
        return None
    # Of discrete values all but one corner are empty, or whole.
    fine = [i for i, name in enumerate(elements.names) if _is_continuous(elements.draws[..., i])]
    if not fine:
        return None
    found = []
    for i in fine:
        for side in ("smallest", "largest"):
            shares = _moving_share(elements.draws[:, :-1, i], moves, side)
            if shares is not None:
                found.append((shares, elements.names[i], side))
    if not found:
        return Line(TITLE, "unknown", "too few moves to tell: draw more")
    (share, expected), name, side = min(found, key=lambda entry: entry[0][0] / entry[0][1])
    text = (
        f"{share:.0%} of the proposals are taken where {name} is {side}, {expected:.0%} elsewhere"
    )
    ratio = at.SMALLEST_MOVING_SHARE * expected / max(share, 1e-6)
    if ratio <= 1:
        return Line(TITLE, "fine", text, ratio=ratio)
    advice = (
        "The steps are too long for this corner (the neck of a funnel, where a scale is small), "
        "and draws in it are too few: smaller steps (target_accept_prob=0.95), a parametrisation "
        "without the neck (non-centred), a prior of the scale that is bounded away from zero, or "
        "TwistedDiffusionSampler."
    )
    wanted = at.SMALLEST_MOVING_SHARE * expected
    fault = Fault("stuck_corner", name, share, wanted, advice)
    return Line(TITLE, "fault", text, (fault,), ratio)


def _is_continuous(draws: np.ndarray) -> bool:
    return len(np.unique(draws)) > draws.size * at.CORNER


def _moving_share(draws: np.ndarray, moves: np.ndarray, side: str) -> tuple[float, float] | None:
    """The share of the moves in a corner and elsewhere; None if there would be too few."""
    level = np.quantile(draws, at.CORNER if side == "smallest" else 1 - at.CORNER)
    corner = draws <= level if side == "smallest" else draws >= level
    if not corner.any() or corner.all():
        return None
    elsewhere = float(moves[~corner].mean())
    if elsewhere * corner.sum() < at.FEWEST_MOVES:
        return None
    return float(moves[corner].mean()), elsewhere
