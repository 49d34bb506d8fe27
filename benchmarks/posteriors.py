# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Every sampler of this package for a posterior under a diffusion prior, behind one face: a function
of a model whose only latent site is `x`, of that prior and of the number of draws, that returns
`draw(key, *model_args)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel

import numpyro_scores as ns
from numpyro_scores.densities.noise_path import default_trace
from numpyro_scores.infer.noise_paths import NUM_PILOTS
from numpyro_scores.infer.path_widths import NUM_LEVELS

NUM_DRAWS = 2_000
BATCH_SIZE = 50  # particles whose energies are found together, in the cache of a core
NUM_PATH_CHAINS = 40


class Posterior(NamedTuple):
    """
    - **x** - draws, shape `(num_draws, *event_shape)`.
    - **num_evals** - evaluations of the denoiser or its derivatives that each draw has cost.
    - **num_prior_evals** - those of the draws of the prior behind it.
    - **log_evidence** - the estimate and its standard error, NaN if the sampler has none.
    """

    x: Array
    num_evals: float
    num_prior_evals: float = 0.0
    log_evidence: tuple[float, float] = (np.nan, np.nan)


Draw = Callable[..., Posterior]


def tempered(
    model: Callable,
    prior: ns.DiffusionPrior,
    num_draws: int = NUM_DRAWS,
    draws_a_particle: int = 2,
) -> Draw:
    smc = ns.TemperedSMC(
        model, num_draws, num_prior_draws=draws_a_particle * num_draws, progress_bar=False
    )
    sampler = prior.sampler
    assert isinstance(sampler, ns.samplers.ReverseSampler)
    return _of_particles(smc, draws_a_particle * sampler.num_steps * sampler.num_evals)


def twisted(
    model: Callable, prior: ns.DiffusionPrior, num_draws: int = NUM_DRAWS, **options: Any
) -> Draw:
    """:param options: of the sampler."""
    del prior
    sampler = ns.TwistedDiffusionSampler(model, num_draws, progress_bar=False, **options)
    return _of_particles(sampler)


def noise_level(
    model: Callable, prior: ns.DiffusionPrior, num_draws: int = NUM_DRAWS, **options: Any
) -> Draw:
    """
    Of priors that are made of energies.

    :param options: of the sampler.
    """
    del prior
    options = {"batch_size": BATCH_SIZE, "progress_bar": False} | options
    return _of_particles(ns.NoiseLevelSMC(model, num_draws, **options))


def _of_particles(sampler: Any, num_prior_evals: float = 0.0) -> Draw:
    def draw(key, *args):
        sampler.run(key, *args)
        evidence = sampler.log_evidence, sampler.log_evidence_error
        return Posterior(
            sampler.get_samples()["x"], sampler.num_grad_evals, num_prior_evals, evidence
        )

    return draw


def replica_exchange(model: Callable, prior: ns.DiffusionPrior, num_draws: int = NUM_DRAWS) -> Draw:
    """Every fifth draw of each of 40 chains."""
    process, num_steps, num_chains = prior.process, 4, 40
    rungs = np.geomspace(process.sigma_min, process.sigma_max, 10)
    kernel = ns.MALA(model, num_steps=num_steps, dense_mass=True)
    kernel = ns.ReplicaExchange(kernel, ns.NoiseLevels(tuple(rungs)), adapt_ladder=True)
    # A gradient comes with a value of the log density, and a swap takes three more.
    evals_a_gradient = evals_of_log_prob(prior) * (num_steps + 3) / num_steps
    num_warmup = 5 * num_draws // num_chains
    return _of_chains(kernel, num_draws, num_chains, num_warmup, 5, evals_a_gradient)


def path_exchange(
    model: Callable,
    prior: ns.DiffusionPrior,
    num_draws: int = NUM_DRAWS,
    num_chains: int = NUM_PATH_CHAINS,
) -> Draw:
    """
    Every 15th draw of each chain, whose replicas swap along the probability flow: on 6 rungs in 8
    dimensions, 13 in 80 and 42 in 800. A metric that is learned from several modes would be none of
    any of them.
    """
    process = prior.process
    num_rungs = max(6, int(1.5 * np.prod(prior.event_shape) ** 0.5))
    rungs = np.geomspace(process.sigma_min, process.sigma_max, num_rungs)
    ladder = ns.NoiseLevels(tuple(rungs), num_path_steps=1 + 14 // num_rungs)
    kernel = ns.MALA(
        model,
        num_steps=1,
        adapt_mass_matrix=False,
        segment_integral=ns.SegmentIntegral(num_nodes=5),
    )
    kernel = ns.ReplicaExchange(kernel, ladder, adapt_ladder=True)
    draw = _of_chains(kernel, num_draws, num_chains, num_warmup=100, thinning=15)
    # Where replicas start: draws of the prior, seen at the levels of the widths and of the rungs.
    sampler: Any = prior.sampler
    evals_a_pilot = sampler.num_steps * sampler.num_evals + NUM_LEVELS + len(rungs)
    num_prior_evals = NUM_PILOTS * evals_a_pilot * num_chains / num_draws
    return lambda key, *args: draw(key, *args)._replace(num_prior_evals=num_prior_evals)


def evals_of_log_prob(prior: ns.DiffusionPrior) -> int:
    """At each noise level a product with the denoiser's Jacobian for each dimension, or probe."""
    rule: Any = prior.log_density
    dim = int(np.prod(prior.event_shape))
    return rule.num_nodes * getattr(rule.trace or default_trace(dim), "num_probes", dim)


def split_gibbs(model: Callable, prior: ns.DiffusionPrior, num_draws: int = NUM_DRAWS) -> Draw:
    """The last of the 200 draws of each chain."""
    kernel = ns.SplitGibbs(model, coupling=2 * prior.process.sigma_min)
    return _of_chains(kernel, num_draws, num_draws, num_warmup=200)


def independent(kernel: Callable[[Callable], MCMCKernel]) -> Callable[..., Draw]:
    """Of a kernel whose draws are independent, one draw of each chain."""
    return lambda model, prior, num_draws=NUM_DRAWS: _of_chains(kernel(model), num_draws, num_draws)


def _of_chains(
    kernel: MCMCKernel,
    num_draws: int,
    num_chains: int,
    num_warmup: int = 0,
    thinning: int = 1,
    evals_a_gradient: float = 1,
) -> Draw:
    num_samples = num_draws // num_chains * thinning
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        thinning=thinning,
        chain_method="vectorized",
        jit_model_args=True,
        progress_bar=False,
    )
    transitions_a_draw = (num_warmup + num_samples) * num_chains / num_draws

    def draw(key, *args):
        mcmc.run(key, *args, extra_fields=("num_grad_evals",))
        num_grad_evals = np.mean(np.asarray(mcmc.get_extra_fields()["num_grad_evals"]))
        num_evals = float(num_grad_evals * transitions_a_draw * evals_a_gradient)
        return Posterior(mcmc.get_samples()["x"], num_evals)

    return draw


SAMPLERS: dict[str, Callable[..., Draw]] = {
    "TemperedSMC": tempered,
    "TwistedDiffusionSampler": twisted,
    "AnnealedLangevin": independent(ns.AnnealedLangevin),
    "MomentMatching": independent(ns.MomentMatching),
    "DAPS": independent(ns.DAPS),
    "DiffusionPosteriorSampling": independent(ns.DiffusionPosteriorSampling),
    # Slow: chains that must run in.
    "SplitGibbs": split_gibbs,
    "ReplicaExchange": replica_exchange,
    "ReplicaExchange along paths": path_exchange,
}
