# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether particles can be drawn from the prior of a model, weighted by data, given noise."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.handlers import seed
from numpyro.infer.util import log_density

from numpyro_scores._validation import is_concrete
from numpyro_scores.handlers import noise_conditional_prior, transformed_prior
from numpyro_scores.infer.guards import check_independent_priors, sites_at
from numpyro_scores.infer.parts import has_likelihood, is_masked, is_unscaled


def check_sampled(
    name: str, model: Callable, args: tuple, kwargs: dict, values: dict[str, Array]
) -> None:
    """
    Raise unless the model has data, and latent sites whose density is that of their draws: a scale
    or a mask around one changes the density alone.

    :param name: of the sampler.
    :param values: constrained values of the latent sites.
    """
    sites = sites_at(model, args, kwargs, values)
    if not has_likelihood(sites):
        raise ValueError(
            f"{name} needs an observed site or a factor, but the model has only {list(sites)}: "
            "give it data (run(key, y=...)), or draw from the prior with "
            "numpyro.infer.Predictive."
        )
    for site, entries in sites.items():
        if site not in values:
            continue
        if not is_unscaled(entries["scale"]):
            raise ValueError(
                f"{name} starts from draws of the prior, but the latent site {site!r} has the "
                f"scale {entries['scale']} (numpyro.handlers.scale, or a plate with subsample_size "
                "around it): its density to that power is not the density of its draws. Write the "
                "distribution that is meant, Normal(0, sd / sqrt(scale)) for a Normal, or sample "
                "with MCMC, which needs no draws of the prior."
            )
        if is_masked(entries["fn"]):
            raise ValueError(
                f"{name} starts from draws of the prior, but a mask leaves out the density of the "
                f"latent site {site!r}, or of a part of it: what is left is flat there, no proper "
                "prior, and has no draws. Mask the observed sites alone, or give the site its "
                "prior."
            )
    _check_deterministic(name, model, args, kwargs, values)


def check_noise_conditional(
    name: str,
    model: Callable,
    args: tuple,
    kwargs: dict,
    values: dict[str, Array],
    processes: Mapping[str, Any],
) -> None:
    """
    Raise unless a model has noise-conditional priors that are independent of all other sites.

    :param processes: those of its noise-conditional priors, by site.
    """
    sites = sites_at(model, args, kwargs, values)
    hidden = [
        site
        for site in values
        if site not in processes and transformed_prior(sites[site]["fn"]) is not None
    ]
    if hidden:
        raise ValueError(
            f"{name} adds noise to a prior itself, but {hidden} are of a TransformedDistribution "
            "of one. Sample the prior and transform its value, or use AnnealedLangevin or "
            "TemperedSMC."
        )
    if not processes:
        raise ValueError(
            f"{name} follows a noise-conditional prior, but the latent sites {sorted(values)} "
            "have none. Use a DiffusionPrior for one of them, or TemperedSMC(model)."
        )
    check_independent_priors(name, model, args, kwargs, values, processes, both_ways=True)


def check_energies(
    name: str, model: Callable, args: tuple, kwargs: dict, values: dict[str, Array]
) -> None:
    """Raise unless every noise-conditional prior of a model is made of an energy."""
    for site, entries in sites_at(model, args, kwargs, values).items():
        prior = noise_conditional_prior(entries["fn"]) if site in values else None
        if prior is not None and not getattr(prior, "has_energy", False):
            raise ValueError(
                f"{name} compares the densities of noise levels, but the prior of {site!r} is made "
                "of a denoiser, or has its density from an integral: it takes a DiffusionPrior of "
                "an energy, U(x, sigma) -> (), such as numpyro_scores.nn.MLPNoiseEnergy. "
                "TwistedDiffusionSampler and TemperedSMC take a denoiser."
            )


def _check_deterministic(name, model, args, kwargs, values):
    """Raise if the density depends on random numbers that are no latent sites."""
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves((args, kwargs))):
        return
    densities = [log_density(seed(model, random.key(k)), args, kwargs, values)[0] for k in range(2)]
    # Within a program, as of `lax.map` over keys, they are not known though the arguments are.
    if all(map(is_concrete, densities)) and not jnp.array_equal(*densities, equal_nan=True):
        raise ValueError(
            f"{name} needs a density that is a function of the latent sites alone, but that of the "
            "model changes with its random key: by numpyro.prng_key(), by a parameter that starts "
            "at random, or by a plate with subsample_size. Draw such numbers once, and give them "
            "to the model as an argument; particles take all data, plates without subsample_size."
        )
