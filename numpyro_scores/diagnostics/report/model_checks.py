# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a model says of a run: its normalisers, its learned scores, what its kernel is known for."""

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores.densities.conservativeness import conservativeness
from numpyro_scores.diagnostics.report import kinds, stein_checks
from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.draws import thinned
from numpyro_scores.diagnostics.report.model_sites import Sites
from numpyro_scores.diagnostics.report.reports import Fault, Line
from numpyro_scores.diagnostics.report.runs import Run
from numpyro_scores.diagnostics.score.level_consistency import level_consistency
from numpyro_scores.distributions import DiffusionPrior, ScoreDistribution
from numpyro_scores.distributions._wrapped import base_of
from numpyro_scores.infer.exchange import ExchangeKernel
from numpyro_scores.infer.guards import latent_normalizers

# Draws at which a score is looked at.
MAX_SCORE_POINTS = 64
# And the noise levels of an energy; fewer draws where a trace is that of many entries.
NUM_LEVELS = 12
LARGEST_EXACT, MAX_LEVEL_POINTS = 256, 16


def check_normalizers(run: Run, sites: Sites) -> Line:
    """Unnormalised densities whose parameters are inferred."""
    title = "normalisers"
    if any(issubclass(part.kind, ExchangeKernel) for part in run.parts):
        return Line(title, "fine", "ExchangeKernel does without", ratio=0.0)
    if sites.not_collected:
        return Line(title, "unknown", "not all sites were collected")
    assert run.model is not None
    varying = latent_normalizers(
        run.model,
        run.args,
        dict(run.kwargs),
        sites.point,
        lambda site: not site["infer"].get("exchange"),
    )
    if not varying:
        return Line(title, "fine", "none that is unknown varies with a latent site", ratio=0.0)
    text = "; ".join(
        f"that of {site!r} varies with {sorted(of)}, and is left out"
        for site, of in varying.items()
    )
    advice = (
        "Their posterior is wrong. Give the distribution its log_normalizer, fix these parameters, "
        "or sample them with ExchangeKernel."
    )
    faults = tuple(
        Fault("missing_normalizer", site, float(len(of)), 0.0, advice)
        for site, of in varying.items()
    )
    return Line(title, "fault", text, faults, np.inf)


def check_scores(run: Run, sites: Sites, chains: np.ndarray, key: Array) -> Iterator[Line]:
    """Whether the scores of the model's sites are gradients, where the draws are."""
    for site, name in sites.names.items():
        fn = base_of(sites.messages[site]["fn"])
        if not isinstance(fn, ScoreDistribution | DiffusionPrior) or not fn.event_shape:
            continue
        title = f"score of {site}"
        points = thinned(run.posterior[name], chains, MAX_SCORE_POINTS)
        points = points.reshape(-1, *fn.event_shape)[:MAX_SCORE_POINTS]
        if len(points) < 3:
            yield Line(title, "unknown", f"it takes 3 draws, got {len(points)}")
            continue
        if isinstance(fn, DiffusionPrior) and fn.has_energy:
            yield _of_levels(run, site, fn, points, key)
        found = conservativeness(fn.score, jnp.asarray(points), key=key)
        yield _of_score(run, site, title, fn, float(found.asymmetry), float(found.loop_residual))


def _of_score(run: Run, site: str, title: str, fn: Any, asymmetry: float, nats: float) -> Line:
    """By its effect: how much a difference of two log densities depends on the way between."""
    text = f"integral round a triangle of draws {nats:.2g} nats, asymmetry {asymmetry:.2g}"
    ratio = nats / at.LARGEST_LOOP_RESIDUAL
    if not np.isfinite(asymmetry + nats):
        return Line(title, "unknown", "it is not finite at some draws")
    if asymmetry <= at.LARGEST_ASYMMETRY:
        # What is left of the integral is the quadrature's.
        return Line(title, "fine", f"a gradient: {text}", ratio=asymmetry / at.LARGEST_ASYMMETRY)
    if ratio <= 1:
        return Line(title, "fine", f"nearly a gradient: {text}", ratio=ratio)
    if kinds.is_unadjusted(run) or run.particles is not None:
        return Line(title, "fine", f"no gradient, but none is needed: {text}", ratio=0.0)
    if isinstance(fn, DiffusionPrior):
        text = (
            f"no gradient: {text}; the draws are of the prior's log_prob, another density than "
            "that of its denoiser. AnnealedLangevin and TwistedDiffusionSampler follow the score"
        )
        return Line(title, "unknown", text)
    advice = (
        "A Metropolis test with a score that is not a gradient accepts by differences that "
        "depend on the path: train an energy, or draw with ULA or OverdampedLangevin."
    )
    fault = Fault("not_a_gradient", site, nats, at.LARGEST_LOOP_RESIDUAL, advice)
    return Line(title, "fault", f"no gradient: {text}", (fault,), ratio)


def _of_levels(run: Run, site: str, fn: DiffusionPrior, points: np.ndarray, key: Array) -> Line:
    """Whether the noise levels of an energy are of one density, where the draws are."""
    title = f"levels of {site}"
    if math.prod(fn.event_shape) > LARGEST_EXACT:
        points = points[:MAX_LEVEL_POINTS]
    nats = level_consistency(fn, points, key, num_levels=NUM_LEVELS).size
    text = f"values and scores of the noise levels differ by {nats:.2g} nats"
    ratio = nats / at.LARGEST_LEVEL_RESIDUAL
    if not np.isfinite(nats):
        return Line(title, "unknown", "the energy is not finite at some draws with noise")
    if ratio <= 1:
        return Line(title, "fine", f"of one density: {text}", ratio=ratio)
    if not kinds.follows_scores(run):
        text += "; the draws are of the values, whatever the scores of other levels are"
        return Line(title, "unknown", text)
    advice = (
        "What comes down the levels by their scores and is then moved or weighed by values is of "
        "neither density: draw with NoiseLevelSMC or by values alone (MALA), train longer, give "
        "DualScoreMatching a fokker_planck_weight, or look where with "
        "numpyro_scores.diagnostics.level_consistency."
    )
    fault = Fault("inconsistent_levels", site, nats, at.LARGEST_LEVEL_RESIDUAL, advice)
    return Line(title, "fault", text, (fault,), ratio)


def check_bias(run: Run, sites: Sites | None) -> Line | None:
    """What is known of a kernel that draws from another density than the model's."""
    found = kinds.bias_of(run)
    if found is None:
        return None
    text, of_others = found
    title = "approximation"
    text += "; simulation_based_calibration measures it"
    learned = stein_checks.score_sites(sites)
    others = sorted(set(sites.messages) - set(learned)) if sites is not None else []
    if not (of_others and others):
        return Line(title, "unknown", text)
    advice = (
        f"{', '.join(others)} beside the prior cannot be trusted under this kernel. Compare with "
        "TwistedDiffusionSampler or TemperedSMC, which have no such bias."
    )
    fault = Fault("biased_kernel", ", ".join(others), float(len(others)), 0.0, advice)
    return Line(title, "fault", text, (fault,), np.inf)
