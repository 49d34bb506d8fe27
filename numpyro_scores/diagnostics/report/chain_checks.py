# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the draws say of themselves: finite, moving, of one distribution, and enough of them."""

from collections.abc import Iterable

import numpy as np

from numpyro_scores.diagnostics.report import kinds
from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.bad_chains import FEWEST_STUCK_DRAWS
from numpyro_scores.diagnostics.report.elements import FEWEST_DRAWS, Elements
from numpyro_scores.diagnostics.report.reports import Fault, Line
from numpyro_scores.diagnostics.report.runs import Run, finite_chains

ANOTHER_START = "Try a smaller step size or another start; say so if you leave the chain out."


def check_finite(run: Run) -> Line:
    """Chains that left the finite numbers."""
    title = "finite draws"
    bad = np.setdiff1d(np.arange(run.num_chains), finite_chains(run.posterior))
    if not len(bad):
        return Line(title, "fine", "all draws are finite", ratio=0.0)
    faults = []
    for chain in bad:
        finite = [np.isfinite(x[chain]) for x in run.posterior.values()]
        of_draws = np.all([x.reshape(len(x), -1).all(axis=1) for x in finite], axis=0)
        share = 1 - np.mean(of_draws)
        faults.append(Fault("not_finite", f"chain {chain}", float(share), 0.0, ANOTHER_START))
    text = f"{_chains(bad)} left the finite numbers; all that follows is of the other chains"
    return Line(title, "fault", text, tuple(faults), np.inf)


def check_moving(run: Run) -> Line:
    """Chains all of whose draws are one point."""
    title = "moving chains"
    num_draws = run.num_draws
    if num_draws < FEWEST_STUCK_DRAWS:
        return Line(title, "unknown", f"{num_draws} equal draws may be rejections: draw more")
    same = [np.all(x == x[:, :1], axis=tuple(range(1, x.ndim))) for x in run.posterior.values()]
    stuck = np.flatnonzero(np.all(same, axis=0))
    if not len(stuck):
        return Line(title, "fine", "every chain moves", ratio=0.0)
    text = f"all {num_draws:,} draws are one point in {_chains(stuck)}"
    faults = [Fault("stuck", f"chain {i}", float(num_draws), 0.0, ANOTHER_START) for i in stuck]
    return Line(title, "fault", text, tuple(faults), np.inf)


def why_no_numbers(run: Run, chains: np.ndarray) -> str | None:
    """Why R-hat and ESS cannot be computed, or None."""
    num_draws = run.num_draws
    if not len(chains):
        return "no chain stayed finite"
    if num_draws < FEWEST_DRAWS:
        return f"{num_draws} draws are fewer than the {FEWEST_DRAWS} it takes"
    return None


def check_r_hat(run: Run, elements: Elements) -> Line:
    """Whether the chains agree."""
    num_chains = len(elements.draws)
    if num_chains == 1:
        return Line("R-hat", "unknown", "one chain cannot disagree with itself: run 4")
    if not elements.names:
        return Line("R-hat", "unknown", "every site is constant")
    threshold = at.r_hat_of(*elements.draws.shape)
    return _of_elements(
        elements,
        "R-hat",
        "r_hat",
        elements.r_hat,
        f"at most {{value:.4g}}, at {{name}} (less than {threshold:.4g} wanted)",
        lambda r_hat: (r_hat - 1) / (threshold - 1),
        far=at.FAR_R_HAT,
        threshold=threshold,
        advice=kinds.how_to_mix(run),
    )


def check_ess(run: Run, elements: Elements, which: str) -> Line:
    """Whether there are enough draws for means (bulk) or for quantiles (tail)."""
    title, num_chains = f"{which} ESS", len(elements.draws)
    if not elements.names:
        return Line(title, "unknown", "every site is constant")
    num_draws = num_chains * elements.draws.shape[1]
    wanted = at.ess_of(num_chains, num_draws, kinds.has_independent_draws(run))
    values = elements.bulk if which == "bulk" else elements.tail
    return _of_elements(
        elements,
        title,
        f"{which}_ess",
        values,
        f"at least {{value:,.0f}} of {num_draws:,} draws, at {{name}} ({wanted:,} wanted)",
        lambda ess: wanted / np.maximum(np.nan_to_num(ess), 1e-6),
        far=at.FAR_ESS,
        threshold=wanted,
        advice=kinds.how_to_draw_more(run),
    )


def check_mcse(elements: Elements) -> Line:
    """How well means are known."""
    title = "MCSE of the mean"
    if not elements.names:
        return Line(title, "unknown", "every site is constant")
    return _of_elements(
        elements,
        title,
        "mcse",
        elements.mcse,
        "at most {value:.3f} standard deviations, at {name} "
        f"({at.RELATIVE_MCSE} or less wanted)",
        lambda mcse: np.nan_to_num(mcse, nan=np.inf) / at.RELATIVE_MCSE,
        far=np.sqrt(at.FAR_ESS),
        threshold=at.RELATIVE_MCSE,
        advice="The error of a mean falls with the root of the number of draws: draw more.",
    )


def too_few_draws(run: Run) -> tuple[Fault, ...]:
    """The fault of a run that is too short for an ESS."""
    num_draws = run.num_draws
    advice = f"Draw {at.ESS_PER_CHAIN} times in each chain at the very least."
    return (Fault("bulk_ess", "all sites", float(num_draws), at.ESS_PER_CHAIN, advice),)


def _of_elements(elements, title, fault, values, text, ratio_of, far, threshold, advice) -> Line:
    """A line on the worst element; a fault if it is far off, or many are."""
    ratios = ratio_of(values)
    worst = int(np.argmax(ratios))
    ratio, name = float(ratios[worst]), elements.names[worst]
    share = float(np.mean(ratios[elements.is_spread] > 1))
    text = text.format(value=values[worst], name=name)
    if share and len(elements.names) > 1:
        text += f"; {share:.0%} of the elements fall short"
    if elements.num_all - elements.num_constant > len(elements.names):
        text += f"; {len(elements.names)} of {elements.num_all:,} elements looked at"
    if not (ratio > far or share > at.SHARE_OF_ELEMENTS):
        return Line(title, "fine", text, ratio=min(ratio, 1.0))
    found = Fault(fault, name, float(values[worst]), float(threshold), advice)
    return Line(title, "fault", text, (found,), ratio)


def _chains(indices: Iterable[int]) -> str:
    return ", ".join(f"chain {i}" for i in indices)
