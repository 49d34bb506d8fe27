# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether anneals reach places with a likelihood as good that no chain has seen."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import log_density

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics.report.model_sites import sites_of
from numpyro_scores.diagnostics.report.runs import Run, finite_chains, run_of
from numpyro_scores.infer.diffusion.annealed import AnnealedLangevin
from numpyro_scores.infer.parts import likelihood_alone

MAX_DRAWS = 1_000
FEWEST_DRAWS = 50
# The draws that are near to a point, and those around it among which a mode would lie.
NEAR, AROUND = 0.05, 0.2
# A place counts as unseen if it lies beyond the draws around, by this share of their width.
MARGIN = 0.4
# So many anneals, in weight, must end there: what lies beyond by chance does so alone.
FEWEST = 3.0
LOWEST_LIKELIHOOD = 0.05


class MissedModes(NamedTuple):
    """
    What :func:`missed_modes` returns.

    - **told** - whether the chains have missed something.
    - **share** - of the anneals, weighted by their likelihood, that end where no chain was; it is
      **not** the probability of that place, for anneals choose modes by the prior above all.
    - **is_unseen** - which anneals these are, shape `(num_anneals,)`.
    - **weights** - of the anneals, shape `(num_anneals,)`: 1 where the likelihood is as good as
      where the chains were, less where it is worse.
    - **log_likelihood_gain** - the mean log likelihood of the unseen anneals less that of the
      draws of the chains; NaN if there are none.
    - **anneals** - where the anneals ended, by site; start a chain at one of the unseen ones.
    """

    told: bool
    share: float
    is_unseen: np.ndarray
    weights: np.ndarray
    log_likelihood_gain: float
    anneals: dict[str, np.ndarray]

    def __str__(self) -> str:
        num, size = int(self.is_unseen.sum()), len(self.is_unseen)
        if not self.told:
            return f"{num} of {size} anneals ended where no chain was: no sign of a missed mode."
        return (
            f"{num} of {size} anneals ended where no chain was, {self.share:.0%} in weight, with a "
            f"log likelihood {self.log_likelihood_gain:+.1f} beside the chains': the chains have "
            "missed a mode, or have not met its width. Start chains at these anneals, or use "
            "TemperedSMC(model), or ReplicaExchange(MALA(model), NoiseLevels([...]))."
        )


def missed_modes(
    result: Any,
    *,
    key: Array,
    num_anneals: int = 64,
    kernel: MCMCKernel | None = None,
    model: Callable | None = None,
    args: tuple = (),
    kwargs: Mapping[str, Any] | None = None,
) -> MissedModes:
    r"""
    Look for modes of the posterior that all chains have missed, for a model with a
    noise-conditional prior (:class:`~numpyro_scores.DiffusionPrior`). R-hat compares chains with
    each other, and the Stein discrepancy sees the density where draws are: neither can tell of a
    place where none is. Anneals through the noise levels of the prior start anywhere, and reach
    modes by themselves.

    With all elements divided by their standard deviation, let :math:`c` be the middle of the draws
    nearest to where an anneal :math:`a` has ended. Another anneal :math:`b` is *in an unseen place
    with it* if

    * :math:`(b - c) \cdot (a - c)` is beyond that of all draws around :math:`c` (a fifth of them),
      by 0.4 of the range that they have; and
    * it is nearer to :math:`a` than to the nearest twentieth of the draws, in the mean.

    So no anneal is judged by the direction that it defines itself. What counts are the weights

    .. math:: w_b = \min(1, p(y \mid b) / \ell),

    with :math:`\ell` the 5% quantile of the likelihood of the draws: an end with a worse
    likelihood than the chains' counts little. A mode is told if those of one place sum to 3.

    It is blind to modes that fewer than four anneals reach, and to those nearer to the draws than
    about 6 of their standard deviations. The anneals of
    :class:`~numpyro_scores.AnnealedLangevin` are biased: a mode that is told has a likelihood as
    good, but what probability it has is for an exact sampler to find.

    :param result: a `numpyro.infer.MCMC` that has run, or ArviZ data of one, with `model` and what
        it is called with.
    :param key: key of the anneals.
    :param num_anneals: number of anneals; each costs a thousand gradients, or more.
    :param kernel: another kernel that anneals, `DAPS(model)` for example, built from the model.
    :param model: with ArviZ data, the model.
    :param args: with ArviZ data, what the model is called with, the data above all.
    :param kwargs: likewise.
    :return: a :class:`~numpyro_scores.diagnostics.MissedModes`.
    :raises TypeError: if `result` is neither.
    :raises ValueError: if the model is unknown or has no noise-conditional prior, if chains have
        fewer than 50 draws in all that are finite, or have not collected all its sites.
    """
    check_key("missed_modes", key)
    check_count("num_anneals", num_anneals)
    run = run_of(result, model, args, kwargs)
    names, draws = _draws_of(run)
    assert run.model is not None
    kernel = AnnealedLangevin(run.model) if kernel is None else kernel
    mcmc = MCMC(
        kernel,
        num_warmup=0,
        num_samples=1,
        num_chains=num_anneals,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, *run.args, **run.kwargs)
    found = mcmc.get_samples()
    anneals = {name: np.asarray(found[name]) for name in names}
    of_model = jax.jit(jax.vmap(partial(_log_likelihood, run.model, run.args, dict(run.kwargs))))
    of_draws, of_anneals = (np.asarray(of_model(points)) for points in (draws, anneals))
    flat_draws, flat = _flat(draws), _flat(anneals)
    finite = np.isfinite(flat).all(axis=1) & np.isfinite(of_anneals)
    excess = np.where(finite, of_anneals - np.quantile(of_draws, LOWEST_LIKELIHOOD), -np.inf)
    weights = np.exp(np.minimum(excess, 0.0))
    flat = np.where(finite[:, None], flat, flat_draws.mean(axis=0))
    is_unseen, weight = _unseen(flat_draws, flat, weights)
    gain = float(of_anneals[is_unseen].mean() - of_draws.mean()) if is_unseen.any() else np.nan
    return MissedModes(
        weight >= FEWEST,
        float(weights[is_unseen].sum() / max(weights.sum(), 1e-300)),
        is_unseen,
        weights,
        gain,
        anneals,
    )


def _draws_of(run: Run) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of the latent sites, and at most 1,000 of their draws, spread over all chains."""
    if run.model is None:
        raise ValueError("missed_modes needs the model: give model=, args= and kwargs=.")
    chains = finite_chains(run.posterior)
    num = len(chains) * run.num_draws
    if num < FEWEST_DRAWS:
        raise ValueError(
            f"missed_modes needs {FEWEST_DRAWS} draws or more of chains that are finite, got {num}."
        )
    sites = sites_of(run, int(chains[0]))
    if isinstance(sites, str):
        raise ValueError(f"missed_modes cannot look at the run: {sites}.")
    assert sites is not None
    if sites.not_collected:
        raise ValueError(
            f"missed_modes needs the draws of all latent sites, but {sites.not_collected} were not "
            "collected."
        )
    keep = np.unique(np.linspace(0, num - 1, min(num, MAX_DRAWS)).astype(int))
    draws = {
        name: run.posterior[alias][chains].reshape(num, *run.posterior[alias].shape[2:])[keep]
        for name, alias in sites.names.items()
    }
    return list(draws), draws


def _log_likelihood(model, args, kwargs, point) -> Array:
    return jnp.asarray(log_density(likelihood_alone(model), args, kwargs, point)[0])


def _flat(points: Mapping[str, np.ndarray]) -> np.ndarray:
    flat = [np.reshape(points[name], (len(points[name]), -1)) for name in sorted(points)]
    return np.concatenate(flat, axis=1).astype(np.float64)


def _unseen(
    draws: np.ndarray, anneals: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, float]:
    """
    The anneals that end in one place where no draw is, those of the place with most weight, and
    that weight without the one that defined the place.
    """
    scale = draws.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    draws, anneals = draws / scale, anneals / scale
    num_near = max(int(NEAR * len(draws)), 5)
    num_around = max(int(AROUND * len(draws)), num_near)
    to_draws = _squared_distances(anneals, draws)
    reach = np.partition(to_draws, num_near, axis=1)[:, :num_near].mean(axis=1)
    is_together = _squared_distances(anneals, anneals) < reach
    best, most = np.zeros(len(anneals), bool), 0.0
    for i in np.flatnonzero(weights):
        to_nearest = _squared_distances(draws[[to_draws[i].argmin()]], draws)[0]
        order = np.argsort(to_nearest)
        centre = draws[order[:num_near]].mean(axis=0)
        direction = anneals[i] - centre
        along = (draws[order[:num_around]] - centre) @ direction
        limit = along.max() + MARGIN * np.ptp(along)
        beyond = ((anneals - centre) @ direction > limit) & is_together[i]
        # An anneal is outermost in the direction that it defines: alone it shows nothing.
        weight = float(weights[beyond].sum() - weights[i] * beyond[i])
        if weight > most:
            best, most = beyond, weight
    return best, most


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.maximum(squared, 0.0)
