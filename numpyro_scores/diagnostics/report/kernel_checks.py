# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a kernel says of a run: divergences, acceptance, swaps, the bias of its step."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores.curvature import curvature_at
from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.bad_chains import DIVERGENCES
from numpyro_scores.diagnostics.report.elements import Elements
from numpyro_scores.diagnostics.report.reports import Fault, Line
from numpyro_scores.diagnostics.report.runs import Part, Run
from numpyro_scores.infer.discrete.discrete_langevin import DiscreteLangevin
from numpyro_scores.infer.exchange import ExchangeKernel
from numpyro_scores.infer.langevin.adjusted import AdjustedKernel
from numpyro_scores.infer.langevin.mclmc import MCLMC
from numpyro_scores.infer.langevin.unadjusted import UnadjustedKernel
from numpyro_scores.integrators import stationary_variance

# Chains whose step is judged where they are.
MAX_CHAINS = 16


def check_divergences(run: Run) -> Line | None:
    """Draws marked `diverging`; None if the kernel has no such mark."""
    title = "divergences"
    marks = {name: x for name, x in run.fields.items() if name.split(".")[-1] == "diverging"}
    if not marks:
        return None
    kernels = {part.path: part.kind for part in run.parts}
    for part in run.parts:
        # What a replica exchange calls diverging is the target's replica's.
        if part.path.endswith("kernel_states."):
            kernels[part.path.removesuffix("kernel_states.")] = part.kind
    fine = "none"
    for name, flags in marks.items():
        kind = kernels.get(name.removesuffix("diverging"), object)
        counts = flags.sum(axis=1)
        if not counts.any():
            continue
        where = ", ".join(f"chain {i} ({n})" for i, n in enumerate(counts) if n)
        if issubclass(kind, AdjustedKernel | ExchangeKernel):
            fine = f"proposals that were not finite, and only rejected: {where}"
            continue
        meanings = [text for known, text in DIVERGENCES.items() if issubclass(kind, known)]
        text = f"{counts.sum():,} of {flags.size:,} draws: {where}"
        advice = " ".join(meanings or DIVERGENCES.values())
        fault = Fault("diverging", where, float(counts.sum()), 0.0, advice)
        return Line(title, "fault", text, (fault,), np.inf)
    return Line(title, "fine", fine, ratio=0.0)


def check_acceptance(run: Run, elements: Elements | None) -> Iterator[Line]:
    """The mean acceptance probability of each chain, of each kernel that has one."""
    found = [
        (part, np.asarray(part.state.mean_accept_prob))
        for part in run.parts
        if hasattr(part.state, "mean_accept_prob")
    ]
    if not run.parts and "accept_prob" in run.fields:
        found = [(None, run.fields["accept_prob"].mean(axis=1))]
    poor = False
    if elements is not None:
        num_chains, num_draws, _ = elements.draws.shape
        poor = bool(np.any(elements.bulk < at.ess_of(num_chains, num_chains * num_draws)))
    for part, mean in found:
        title = "acceptance" + (f" of {part.kind.__name__}" if part and part.path else "")
        if not np.isfinite(mean).any():
            yield Line(title, "unknown", "it is not finite")
            continue
        least, largest = float(np.nanmin(mean)), float(np.nanmax(mean))
        text = f"{least:.2f} to {largest:.2f} by chain" if mean.size > 1 else f"{least:.2f}"
        unadjusted = (
            part is not None and issubclass(part.kind, DiscreteLangevin) and not part.is_adjusted
        )
        if least < at.SMALLEST_ACCEPTANCE:
            advice = (
                "Most proposals are refused: a smaller step_size, or a longer warmup to adapt it."
            )
            name = "low_acceptance"
            if unadjusted:
                advice = "A Metropolis test would refuse most of these steps: a smaller step_size, "
                advice += "or adjusted=True."
                name = "step_bias"
            where = ", ".join(f"chain {i}" for i in np.flatnonzero(mean < at.SMALLEST_ACCEPTANCE))
            fault = Fault(name, where, least, at.SMALLEST_ACCEPTANCE, advice)
            yield Line(
                title,
                "fault",
                f"{text} ({at.SMALLEST_ACCEPTANCE} at least wanted)",
                (fault,),
                at.SMALLEST_ACCEPTANCE / max(least, 1e-6),
            )
        elif poor and least > at.LARGEST_ACCEPTANCE and not unadjusted:
            advice = (
                "Next to no proposal is refused, and the chains move slowly: a larger step_size "
                "(or adapt it in warmup), or more steps a draw."
            )
            fault = Fault("small_step", "all chains", least, at.LARGEST_ACCEPTANCE, advice)
            yield Line(title, "fault", f"{text}, with too small an ESS", (fault,), np.inf)
        else:
            ratio = at.SMALLEST_ACCEPTANCE / max(least, 1e-6)
            yield Line(title, "fine", text, ratio=ratio)


def check_segments(run: Run) -> Iterator[Line]:
    """The share of proposals across which a score could not be integrated, and so refused."""
    for part in run.parts:
        shares = getattr(part.state, "mean_unresolved", None)
        if shares is None or not np.any(shares):
            continue
        title, largest = "integrals of scores", float(np.max(shares))
        text = f"{largest:.0%} of the proposals at most were refused, unresolved"
        ratio = largest / at.LARGEST_UNRESOLVED
        if ratio <= 1:
            yield Line(title, "fine", text, ratio=ratio)
            continue
        advice = (
            "The draws are of the right density, but move slowly where the score changes fast: "
            "more nodes, segment_integral=SegmentIntegral(num_nodes=13), a smaller step_size, or "
            "more rungs of a ladder."
        )
        fault = Fault(
            "unresolved_segments",
            f"chain {int(np.argmax(shares))}",
            largest,
            at.LARGEST_UNRESOLVED,
            advice,
        )
        yield Line(title, "fault", text, (fault,), ratio)


def check_ladder(run: Run) -> Iterator[Line]:
    """Swap rates and round trips of a replica exchange."""
    for part in run.parts:
        if not hasattr(part.state, "num_round_trips"):
            continue
        rates = np.asarray(part.state.swap_accept_prob)
        chain, pair = np.unravel_index(np.argmin(rates), rates.shape)
        least = float(rates[chain, pair])
        where = f"rungs {pair} and {pair + 1}, chain {chain}"
        text = f"{least:.2f} at least, between {where}"
        ratio = at.SMALLEST_SWAP_RATE / max(least, 1e-6)
        if least < at.SMALLEST_SWAP_RATE:
            advice = "Add rungs about there, or let warmup place them (adapt_ladder=True)."
            fault = Fault("low_swap_rate", where, least, at.SMALLEST_SWAP_RATE, advice)
            text += f" ({at.SMALLEST_SWAP_RATE} wanted)"
            yield Line("swap rates", "fault", text, (fault,), ratio)
        else:
            yield Line("swap rates", "fine", text, ratio=ratio)
        yield _round_trips(np.asarray(part.state.num_round_trips), part, rates)


def _round_trips(trips: np.ndarray, part: Part, rates: np.ndarray) -> Line:
    title = "round trips"
    # Syed et al. (2021): with rejection rates r, 1 / (2 + 2 sum r / (1 - r)) a draw at best.
    ideal = 1 / (2 + 2 * np.sum((1 - rates) / np.maximum(rates, 1e-9), axis=1))
    measured = float(np.mean(part.state.round_trip_rate))
    text = f"{trips.min()} to {trips.max()} by chain, {measured:.2g} a draw"
    text += f" (at best {ideal.mean():.2g} with these swap rates)"
    none = np.flatnonzero(trips == 0)
    if not len(none):
        return Line(title, "fine", text, ratio=0.0)
    advice = (
        "Nothing that the last rung found has come back to the target. Add rungs where swaps are "
        "rare, and draw longer."
    )
    faults = tuple(Fault("no_round_trips", f"chain {i}", 0.0, 1.0, advice) for i in none)
    return Line(title, "fault", text, faults, np.inf)


def check_step_bias(run: Run, key: Array) -> Iterator[Line]:
    """The error that an unadjusted kernel's step makes of the stationary variance."""
    for part in run.parts:
        if not hasattr(part.state, "variance_error"):
            continue
        errors = np.asarray(
            np.nan if part.state.variance_error is None else part.state.variance_error
        )
        asked = part.is_alive and not part.path and issubclass(part.kind, UnadjustedKernel)
        if np.isnan(errors).any() and asked:
            errors = np.asarray(_variance_errors(run, part, key))
        title = "step-size bias"
        if np.isnan(errors).all():
            text = "the step size was given, and its bias not measured: do not give it"
            yield Line(title, "unknown", text)
            continue
        worst = float(errors.flat[np.nanargmax(np.abs(errors))])
        by_energy = issubclass(part.kind, MCLMC)
        text = (
            f"variance {worst:+.0%} in the narrowest direction"
            if np.isfinite(worst)
            else "the steps are unstable in the narrowest direction"
        )
        if by_energy:
            text = f"variance {worst:+.1%} in narrow directions, by the error of the energy"
        ratio = abs(worst) / at.LARGEST_VARIANCE_ERROR
        if ratio <= 1:
            yield Line(title, "fine", text, ratio=ratio)
            continue
        chain = f"chain {np.nanargmax(np.abs(errors))}"
        advice = (
            "A smaller step_size, or none: then warmup finds a safe one. Or MALA, without a bias."
        )
        if by_energy:
            advice = "A smaller desired_bias and no step_size, or MAMS, without a bias."
        fault = Fault("step_bias", chain, worst, at.LARGEST_VARIANCE_ERROR, advice)
        yield Line(title, "fault", text, (fault,), ratio)


def _variance_errors(run: Run, part: Part, key: Array) -> Array:
    """By the largest curvature at the last draw of each chain, as for a Gaussian."""
    kernel, state = part.kernel, part.state

    def error(z, adapt_state, step_size, key):
        v, gradient, _ = kernel._in_coordinates(z, adapt_state, run.args, dict(run.kwargs))
        curvature = curvature_at(gradient, v, key)
        dynamics = kernel._dynamics(step_size)
        variance = stationary_variance(kernel._integrator, step_size, curvature, **dynamics)
        return variance * curvature - 1

    some = jax.tree.map(
        lambda x: x[:MAX_CHAINS], (state.z, state.adapt_state, jnp.asarray(state.step_size))
    )
    keys = random.split(key, len(some[2]))
    return jax.jit(jax.vmap(error))(*some, keys)
