# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""All that can be told of a run, in one report."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jax import Array, random

from numpyro_scores._validation import check_key
from numpyro_scores.diagnostics.arviz.datasets import Arrays
from numpyro_scores.diagnostics.report import chain_checks as of_chains
from numpyro_scores.diagnostics.report import kernel_checks as of_kernel
from numpyro_scores.diagnostics.report import model_checks as of_model
from numpyro_scores.diagnostics.report.corners import check_corners
from numpyro_scores.diagnostics.report.correction_checks import check_correction
from numpyro_scores.diagnostics.report.elements import Elements, elements_of
from numpyro_scores.diagnostics.report.estimates import summaries_of
from numpyro_scores.diagnostics.report.figure import panels_of
from numpyro_scores.diagnostics.report.metric_checks import check_metric
from numpyro_scores.diagnostics.report.model_sites import Sites, sites_of, without_density
from numpyro_scores.diagnostics.report.particle_checks import check_particles
from numpyro_scores.diagnostics.report.reports import Line, Report
from numpyro_scores.diagnostics.report.runs import Run, finite_chains, run_of
from numpyro_scores.diagnostics.report.stein_checks import check_stein


def diagnose(
    result: Any,
    *,
    model: Callable | None = None,
    args: tuple = (),
    kwargs: Mapping[str, Any] | None = None,
    key: Array | None = None,
) -> Report:
    r"""
    Look at a run in every way that this package knows, and say what is fine, what is not, and what
    to do next. The report has a line each for

    * chains that left the finite numbers, and those that never moved;
    * R-hat, rank-normalised and folded, bulk and tail ESS, and the Monte Carlo standard error of
      the mean, by ArviZ (Vehtari et al. 2021);
    * divergences, acceptance, swap rates and round trips of a ladder;
    * the error that the step of an unadjusted kernel makes of the stationary variance: as the
      kernel reports it, or by the curvature at the last draws if the step size was given;
    * the kernel Stein discrepancy of the draws, in the unconstrained space of the model;
    * unnormalised densities whose parameters are inferred, scores that are not gradients, and
      energies of noise levels whose values and scores disagree.

    What cannot be told (one chain, too few draws, discrete sites) is a line too, never a number.
    Chains that are not finite are left out of the numbers that follow.

    Time and memory are bounded. Of a posterior of more than 400 numbers ArviZ sees 200 whose chains
    differ most, by the classical R-hat, and 200 spread evenly. Since of many numbers some pass a
    threshold by chance, a fault is one that is far off (R-hat above 1.05, less than half of the
    ESS that is wanted), or that more than a hundredth of those spread evenly have. The Stein
    discrepancy is that of at most 1,000 draws, half as many as the smallest ESS, with 20 million
    numbers in all (or of 50 draws); scores are looked at in 64 draws. Of a
    :class:`~numpyro_scores.StoredMCMC` with more than 32 MiB of draws on disk one of every few is
    looked at, and in their place those that are not finite or diverge.

    :param result: a `numpyro.infer.MCMC` that has run, of any kernel, a
        :class:`~numpyro_scores.TemperedSMC` or another sampler of particles, or what
        :func:`~numpyro_scores.to_inference_data` or ArviZ make of one: `InferenceData` under ArviZ
        0.x, a `DataTree` under 1.x.
    :param model: with ArviZ data, the model; without it there are no lines on the score and the
        normaliser.
    :param args: with ArviZ data, what the model is called with, the data above all.
    :param kwargs: likewise.
    :param key: key of the tests; `random.key(0)` unless given, so that a report can be had again.
    :return: a :class:`~numpyro_scores.diagnostics.Report`.
    :raises TypeError: if `result` is neither.
    :raises ValueError: if there are no draws, or a model is given with an `MCMC`, which has one.
    """
    if key is not None:
        check_key("diagnose", key)
    run = run_of(result, model, args, kwargs)
    chains = finite_chains(run.posterior)
    sites = sites_of(run, int(chains[0]) if len(chains) else 0)
    dead = without_density(run, sites, chains) if isinstance(sites, Sites) else {}
    reason = of_chains.why_no_numbers(run, chains)
    elements = None
    if reason is None:
        some = len(chains) < run.num_chains
        finite = {name: x[chains] if some else x for name, x in run.posterior.items()}
        elements = elements_of(finite, dead)
    keys = random.split(random.key(0) if key is None else key, 3)
    lines = (
        *_of_draws(run, chains, reason, elements, dead),
        *_of_kernel(run, elements, keys[0]),
        *_of_model(run, sites, chains, elements, dead, keys[1], keys[2]),
    )
    return Report(run.title, tuple(lines), panels_of(run, elements), summaries_of(run, elements))


def _of_draws(
    run: Run, chains: Any, reason: str | None, elements: Elements | None, dead: Arrays
) -> Iterator[Line]:
    yield of_chains.check_finite(run)
    if run.particles is not None:
        yield from check_particles(run)
        return
    yield of_chains.check_moving(run)
    if dead:
        counts = ", ".join(f"{flags.sum()} of {name}" for name, flags in dead.items())
        text = f"{counts} have no density (a mask leaves them out), and are not looked at"
        yield Line("elements", "fine", text)
    if elements is None:
        few = of_chains.too_few_draws(run) if len(chains) else ()
        yield Line("R-hat, ESS", "fault" if few else "unknown", f"cannot be told: {reason}", few)
        return
    yield of_chains.check_r_hat(run, elements)
    yield of_chains.check_ess(run, elements, "bulk")
    yield of_chains.check_ess(run, elements, "tail")
    yield of_chains.check_mcse(elements)


def _of_kernel(run: Run, elements: Elements | None, key: Array) -> Iterator[Line]:
    divergences = of_kernel.check_divergences(run)
    if divergences is not None:
        yield divergences
    correction = check_correction(run)
    if correction is not None:
        yield correction
    yield from of_kernel.check_acceptance(run, elements)
    yield from of_kernel.check_segments(run)
    if elements is not None and elements.names:
        corners = check_corners(run, elements)
        if corners is not None:
            yield corners
    yield from of_kernel.check_ladder(run)
    yield from of_kernel.check_step_bias(run, key)
    yield from check_metric(run)


def _of_model(
    run: Run,
    sites: Sites | str | None,
    chains: Any,
    elements: Elements | None,
    dead: Arrays,
    key_stein: Array,
    key_score: Array,
) -> Iterator[Line]:
    known = None if isinstance(sites, str) else sites
    bias = of_model.check_bias(run, known)
    if bias is not None:
        yield bias
    if elements is not None:
        yield check_stein(run, sites, chains, elements, dead, key_stein)
    if known is not None:
        yield of_model.check_normalizers(run, known)
        if len(chains):
            yield from of_model.check_scores(run, known, chains, key_score)
