# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether the draws are of the density that the model has, by its score at them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.handlers import seed
from numpyro.infer.util import potential_energy, unconstrain_fn

from numpyro_scores.diagnostics.arviz.datasets import Arrays
from numpyro_scores.diagnostics.report import kinds
from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.draws import num_independent, thinned
from numpyro_scores.diagnostics.report.elements import Elements
from numpyro_scores.diagnostics.report.model_sites import Sites
from numpyro_scores.diagnostics.report.probes import probe
from numpyro_scores.diagnostics.report.reports import Fault, Line
from numpyro_scores.diagnostics.report.runs import Run
from numpyro_scores.diagnostics.score.kernel_stein import kernel_stein_discrepancy
from numpyro_scores.distributions import DiffusionPrior, ScoreDistribution
from numpyro_scores.distributions._wrapped import base_of

# Draws that the Stein discrepancy and its bootstrap are of, and numbers in all of them.
MAX_STEIN_DRAWS = 1_000
MAX_STEIN_NUMBERS = 20_000_000
FEWEST_STEIN_DRAWS = 50
NUM_BOOTSTRAP = 2_000
TITLE = "Stein discrepancy"


def check_stein(
    run: Run,
    sites: Sites | str | None,
    chains: np.ndarray,
    elements: Elements,
    dead: Arrays,
    key: Array,
) -> Line:
    """
    Whether the draws are of the density that the model has.

    :param dead: elements that have no density, by the posterior's names.
    """
    if not elements.names:
        return Line(TITLE, "unknown", "every site is constant")
    size = sum(x[0, 0].size for x in run.posterior.values())
    num = int(
        min(
            num_independent(run, elements),
            MAX_STEIN_DRAWS,
            max(FEWEST_STEIN_DRAWS, MAX_STEIN_NUMBERS // size),
        )
    )
    if num < FEWEST_STEIN_DRAWS:
        wanted = f"an ESS of {2 * FEWEST_STEIN_DRAWS}"
        if run.particles is not None:
            wanted = f"{2 * FEWEST_STEIN_DRAWS} lines of descent"
        return Line(TITLE, "unknown", f"needs {wanted}: draw more")
    found = _potential(run, sites, lambda x: thinned(np.asarray(x), chains, num))
    if isinstance(found, str):
        return Line(TITLE, "unknown", found)
    z, potential = found
    first, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], z))
    flat = np.asarray(jax.vmap(lambda z: ravel_pytree(z)[0])(z))
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        text = f"{np.sum(~finite)} of {num} draws are on the edge of their support"
        return Line(TITLE, "unknown", text)
    alive = _alive(sites, dead, z)
    whole = np.asarray(first)

    def energy(x):
        return potential(unravel(jnp.asarray(whole).at[alive].set(x)))

    return _judged(run, sites, flat[:, alive], energy, key)


def _judged(
    run: Run, sites: Sites | str | None, flat: np.ndarray, energy: Callable, key: Array
) -> Line:
    key_test, key_probe = random.split(key)
    gradient = jax.grad(energy)
    points = jnp.asarray(flat)
    test = kernel_stein_discrepancy(
        points, lambda x: -gradient(x), key=key_test, num_bootstrap=NUM_BOOTSTRAP
    )
    p_value = float(test.p_value)
    if not np.isfinite(test.statistic):
        return Line(TITLE, "unknown", "the score of the model is not finite at some draws")
    text = f"p = {p_value:.2g} from {len(flat)} draws, thinned ({at.STEIN_LEVEL} is the level)"
    if p_value > at.WEAK_STEIN_LEVEL:
        text += "; it does not see the weights of modes that are far apart"
        if _is_annealed(sites):
            text += ", nor one that all chains missed, which missed_modes(mcmc, key=key) looks for"
        return Line(TITLE, "fine", text, ratio=at.STEIN_LEVEL / p_value)
    # Only now, since it costs as much as the test.
    if reason := _why_not_applicable(run, sites, energy, points, key_probe):
        return Line(TITLE, "unknown", f"p = {p_value:.2g}, which tells nothing: {reason}")
    if p_value > at.STEIN_LEVEL:
        text += (
            "; one in a hundred right runs has so small a p: draw more, or another time, to decide"
        )
        return Line(TITLE, "unknown", text)
    advice = kinds.what_draws_another_density(run)
    fault = Fault("wrong_target", "all sites", p_value, at.STEIN_LEVEL, advice)
    return Line(TITLE, "fault", text, (fault,), max(at.STEIN_LEVEL / p_value, 1.5))


def _why_not_applicable(
    run: Run, sites: Sites | str | None, energy: Callable, points: Array, key: Array
) -> str | None:
    """Why Stein's identity does not hold for the density that was drawn from, or None."""
    found = probe(energy, points, key)
    if found.border > 0:
        return (
            f"the density does not vanish at the border of its support, which {found.border:.0%} "
            "of the ways beyond the draws meet (a hard limit, as of a uniform likelihood), and "
            "Stein's identity does not hold there"
        )
    if found.jump == 0:
        return None
    learned = [name for name in score_sites(sites) if not _has_energy(sites, name)]
    if not learned:
        return (
            f"the density jumps, by {found.jump:.2g} nats on the way from draw to draw, and "
            "Stein's identity does not hold there"
        )
    if kinds.is_unadjusted(run):
        # These follow the score, and know no value.
        return None
    return (
        f"value and score of the density of {learned} differ, by {found.jump:.2g} nats on the way "
        "from draw to draw; kernels with a Metropolis test draw by the value, and the test is of "
        "the score. Judge by data, or by a sampler that follows the score (AnnealedLangevin, "
        "TwistedDiffusionSampler)"
    )


def score_sites(sites: Sites | str | None) -> list[str]:
    """The latent sites of learned scores, and of learned energies of every noise level."""
    if not isinstance(sites, Sites):
        return []
    return [
        name
        for name, site in sites.messages.items()
        if isinstance(base_of(site["fn"]), DiffusionPrior | ScoreDistribution)
    ]


def _is_annealed(sites: Sites | str | None) -> bool:
    """Whether anneals through noise levels can look for modes."""
    messages = sites.messages.values() if isinstance(sites, Sites) else ()
    return any(isinstance(base_of(site["fn"]), DiffusionPrior) for site in messages)


def _has_energy(sites: Sites | str | None, name: str) -> bool:
    """Whether value and gradient of the density of a site are one thing, learned or not."""
    assert isinstance(sites, Sites)
    return getattr(base_of(sites.messages[name]["fn"]), "has_energy", False)


def _alive(sites: Sites | str | None, dead: Arrays, z: Any) -> np.ndarray:
    """The places of the flat values that have a density."""
    if not dead or not isinstance(sites, Sites):
        return np.arange(ravel_pytree(jax.tree.map(lambda x: x[0], z))[0].size)
    flags = {}
    for site, values in z.items():
        shape = np.shape(values)[1:]
        out = dead.get(sites.names[site])
        # A transform that changes the shape (a simplex) keeps all of its elements.
        has_own = out is not None and out.shape == shape
        flags[site] = np.logical_not(out) if has_own else np.ones(shape, bool)
    return np.flatnonzero(np.asarray(ravel_pytree(flags)[0]))


def _potential(
    run: Run, sites: Sites | str | None, thin: Callable[[np.ndarray], np.ndarray]
) -> tuple[Any, Callable] | str:
    """Unconstrained draws and the potential energy of one, or why there is none."""
    kwargs = dict(run.kwargs)
    if isinstance(sites, str):
        return sites
    if sites is None:
        kernel = run.parts[0].kernel if run.parts else None
        if kernel is None or not run.parts[0].is_alive:
            return "the model is not known: give model=, args= and kwargs="
        if not hasattr(kernel, "get_potential_fn"):
            return "the kernel does not tell its potential energy"
        return jax.tree.map(thin, run.samples), kernel.get_potential_fn(run.args, kwargs)
    if sites.discrete:
        return f"it needs continuous sites, and {list(sites.discrete)} are discrete"
    if sites.not_collected:
        return f"the sites {sites.not_collected} were not collected"
    draws = {site: thin(run.posterior[name]) for site, name in sites.names.items()}
    assert run.model is not None
    model = _seeded(run.model)
    z = jax.jit(jax.vmap(partial(unconstrain_fn, model, run.args, kwargs)))(draws)
    return z, partial(potential_energy, model, run.args, kwargs)


def _seeded(model: Callable) -> Callable:
    def run(*args, **kwargs):
        # A new handler each time: it keeps its key, which may be a tracer.
        return seed(model, random.key(0))(*args, **kwargs)

    return run
