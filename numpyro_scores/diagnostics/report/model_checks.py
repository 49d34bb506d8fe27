# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a model says of the draws: its score at them, its normaliser, and its learned scores."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro import validation_enabled
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import potential_energy, unconstrain_fn

from numpyro_scores.densities.conservativeness import conservativeness
from numpyro_scores.diagnostics.arviz.datasets import variable_name
from numpyro_scores.diagnostics.report import thresholds as at
from numpyro_scores.diagnostics.report.elements import Elements
from numpyro_scores.diagnostics.report.reports import Fault, Line
from numpyro_scores.diagnostics.report.runs import Run
from numpyro_scores.diagnostics.score.kernel_stein import kernel_stein_discrepancy
from numpyro_scores.infer.diffusion.annealed import AnnealedLangevin
from numpyro_scores.infer.exchange import ExchangeKernel
from numpyro_scores.infer.guards import latent_normalizers
from numpyro_scores.infer.langevin.segments import score_distribution
from numpyro_scores.infer.langevin.unadjusted import UnadjustedKernel
from numpyro_scores.infer.model import LatentSites

# Draws that the Stein discrepancy and its bootstrap are of, and numbers in all of them.
MAX_STEIN_DRAWS = 1_000
MAX_STEIN_NUMBERS = 20_000_000
FEWEST_STEIN_DRAWS = 50
NUM_BOOTSTRAP = 2_000
# Draws at which a score is looked at.
MAX_SCORE_POINTS = 64


class Sites(NamedTuple):
    """
    The latent sites of a run's model.

    - **names** - of those that were collected: from NumPyro's name to the posterior's.
    - **latent** - what is known of all of them.
    - **point** - the values of a draw, by NumPyro's name.
    """

    names: dict[str, str]
    latent: LatentSites
    point: dict[str, Any]


def sites_of(run: Run, chain: int) -> Sites | None:
    """What the model has at the first draw of a chain; None without a model."""
    if run.model is None:
        return None

    def at_draw(site):
        if site["type"] != "sample" or site["is_observed"]:
            return None
        draws = run.posterior.get(variable_name(site["name"]))
        return init_to_uniform(site) if draws is None else draws[chain, 0]

    # A draw that is not finite has a line of its own.
    with validation_enabled(False):
        latent, _ = LatentSites.of(run.model, random.key(0), at_draw, run.args, dict(run.kwargs))
    every = [*latent.transforms, *latent.discrete, *latent.enumerated]
    names = {site: variable_name(site) for site in every if variable_name(site) in run.posterior}
    point = {site: run.posterior[name][chain, 0] for site, name in names.items()}
    return Sites(names, latent, point)


def check_stein(
    run: Run, sites: Sites | None, chains: np.ndarray, elements: Elements, key: Array
) -> Line:
    """Whether the draws are of the density that the model has."""
    title = "Stein discrepancy"
    if not elements.names:
        return Line(title, "unknown", "every site is constant")
    # Half of the effective number, evenly spaced, are as good as independent.
    effective = np.nanmin(np.minimum(elements.bulk, elements.tail)) / 2
    size = sum(x[0, 0].size for x in run.posterior.values())
    num = int(min(effective, MAX_STEIN_DRAWS, max(FEWEST_STEIN_DRAWS, MAX_STEIN_NUMBERS // size)))
    if num < FEWEST_STEIN_DRAWS:
        return Line(title, "unknown", f"needs an ESS of {2 * FEWEST_STEIN_DRAWS}: draw more")
    found = _potential(run, sites, lambda x: _thinned(np.asarray(x), chains, num))
    if isinstance(found, str):
        return Line(title, "unknown", found)
    z, potential = found
    _, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], z))
    flat = np.asarray(jax.vmap(lambda z: ravel_pytree(z)[0])(z))
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        text = f"{np.sum(~finite)} of {num} draws are on the edge of their support"
        return Line(title, "unknown", text)
    gradient = jax.grad(lambda x: potential(unravel(x)))
    test = kernel_stein_discrepancy(
        jnp.asarray(flat), lambda x: -gradient(x), key=key, num_bootstrap=NUM_BOOTSTRAP
    )
    p_value = float(test.p_value)
    if not np.isfinite(test.statistic):
        return Line(title, "unknown", "the score of the model is not finite at some draws")
    text = f"p = {p_value:.2g} from {len(flat)} draws, thinned ({at.STEIN_LEVEL} is the level)"
    if p_value > at.STEIN_LEVEL:
        text += "; it does not see the weights of modes that are far apart"
        return Line(title, "fine", text, ratio=at.STEIN_LEVEL / p_value)
    advice = (
        "The draws are not of this model's density: a kernel with a bias (an unadjusted step that "
        "is too large, an anneal that is too fast), a broken one, or another model. Compare with "
        "MALA or NUTS, and try the kernel by geweke_test."
    )
    fault = Fault("wrong_target", "all sites", p_value, at.STEIN_LEVEL, advice)
    return Line(title, "fault", text, (fault,), max(at.STEIN_LEVEL / p_value, 1.5))


def _potential(
    run: Run, sites: Sites | None, thinned: Callable[[np.ndarray], np.ndarray]
) -> tuple[Any, Callable] | str:
    """Unconstrained draws and the potential energy of one, or why there is none."""
    kwargs = dict(run.kwargs)
    if sites is None:
        kernel = run.parts[0].kernel if run.parts else None
        if not hasattr(kernel, "get_potential_fn"):
            if run.parts:
                return "the kernel does not tell its potential energy"
            return "the model is not known: give model=, args= and kwargs="
        z = jax.tree.map(thinned, run.samples)
        return z, kernel.get_potential_fn(run.args, kwargs)
    latent = sites.latent
    discrete = [*latent.discrete, *latent.enumerated]
    if discrete:
        return f"it needs continuous sites, and {discrete} are discrete"
    missing = sorted(set(latent.transforms) - set(sites.names))
    if missing:
        return f"the sites {missing} were not collected"
    draws = {site: thinned(run.posterior[sites.names[site]]) for site in latent.transforms}
    assert run.model is not None
    model = _seeded(run.model)
    z = jax.jit(jax.vmap(partial(unconstrain_fn, model, run.args, kwargs)))(draws)
    return z, partial(potential_energy, model, run.args, kwargs)


def check_normalizers(run: Run, sites: Sites) -> Line:
    """Unnormalised densities whose parameters are inferred."""
    title = "normalisers"
    if any(isinstance(part.kernel, ExchangeKernel) for part in run.parts):
        return Line(title, "fine", "ExchangeKernel does without", ratio=0.0)
    latent = sites.latent
    if len(sites.names) < len([*latent.transforms, *latent.discrete, *latent.enumerated]):
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
    assert run.model is not None
    model_trace = trace(substitute(seed(run.model, random.key(0)), data=sites.point)).get_trace(
        *run.args, **run.kwargs
    )
    for site, name in sites.names.items():
        fn = score_distribution(model_trace[site]["fn"])
        if fn is None or not fn.event_shape:
            continue
        title = f"score of {site}"
        points = _thinned(run.posterior[name], chains, MAX_SCORE_POINTS)
        points = points.reshape(-1, *fn.event_shape)[:MAX_SCORE_POINTS]
        if len(points) < 3:
            yield Line(title, "unknown", f"it takes 3 draws, got {len(points)}")
            continue
        found = conservativeness(fn.score, jnp.asarray(points), key=key)
        asymmetry, nats = float(found.asymmetry), float(found.loop_residual)
        text = f"asymmetry {asymmetry:.2g}, integral round a triangle {nats:.2g} nats"
        ratio = asymmetry / at.LARGEST_ASYMMETRY
        if not np.isfinite(asymmetry):
            yield Line(title, "unknown", "it is not finite at some draws")
        elif ratio <= 1:
            yield Line(title, "fine", f"a gradient: {text}", ratio=ratio)
        elif is_unadjusted(run):
            yield Line(title, "fine", f"no gradient, but the kernel needs none: {text}")
        else:
            advice = (
                "A Metropolis test with a score that is not a gradient accepts by differences that "
                "depend on the path: train an energy, or draw with ULA or OverdampedLangevin."
            )
            fault = Fault("not_a_gradient", site, asymmetry, at.LARGEST_ASYMMETRY, advice)
            yield Line(title, "fault", f"no gradient: {text}", (fault,), ratio)


def is_unadjusted(run: Run) -> bool:
    """Whether no Metropolis test was made."""
    return any(isinstance(part.kernel, UnadjustedKernel | AnnealedLangevin) for part in run.parts)


def _thinned(draws: np.ndarray, chains: np.ndarray, num: int) -> np.ndarray:
    """`num` draws at most, evenly spaced, of these chains one after the other."""
    total = len(chains) * draws.shape[1]
    chosen = np.arange(0, total, -(-total // num))
    return draws[chains[chosen // draws.shape[1]], chosen % draws.shape[1]]


def _seeded(model: Callable) -> Callable:
    def run(*args, **kwargs):
        # A new handler each time: it keeps its key, which may be a tracer.
        return seed(model, random.key(0))(*args, **kwargs)

    return run
