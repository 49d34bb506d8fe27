# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The log likelihood of each observation at each draw, of which LOO and WAIC are made."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from numpyro.handlers import seed, substitute, trace

from numpyro_scores.diagnostics.arviz.datasets import Arrays, variable_name
from numpyro_scores.infer.guards import is_unnormalized

# Draws whose likelihood is evaluated at a time.
BLOCK_SIZE = 16


def is_observed(site: Mapping[str, Any]) -> bool:
    """Whether a message is that of data; an empty value is a `numpyro.factor`."""
    return site["type"] == "sample" and site["is_observed"] and np.size(site["value"]) > 0


def log_likelihood_of(
    model: Callable | None, args: tuple, kwargs: Mapping[str, Any], samples: Mapping[str, Any]
) -> Arrays:
    r"""
    :math:`\log p(y_i \mid \theta)` of each observed site whose density has its normaliser. The
    prior plays no part in it: one that is known up to a constant does no harm.

    :param samples: draws of all latent sites, by NumPyro's names, shape `(chains, draws, ...)`.
    :return: by the names of the posterior's variables, shape `(chains, draws, *batch_shape)`.
    :raises ValueError: if there is no model, if not all latent sites were collected, or if no
        observed site has a normalised density.
    """
    if model is None:
        raise ValueError(
            "log_likelihood=True needs a model with observed sites, but the kernel was built from "
            "a potential_fn, which does not tell data from prior."
        )
    shape = np.shape(next(iter(samples.values())))[:2]
    flat = {name: np.reshape(x, (-1, *np.shape(x)[2:])) for name, x in samples.items()}

    def at(point: dict[str, Any]) -> dict[str, Any]:
        return trace(substitute(seed(model, random.key(0)), data=point)).get_trace(*args, **kwargs)

    first = {name: jnp.asarray(x[0]) for name, x in flat.items()}
    chosen = _normalized_sites(at(first), samples)

    def of_draw(point):
        sites = at(point)
        return {name: sites[name]["fn"].log_prob(sites[name]["value"]) for name in chosen}

    found = jax.jit(lambda flat: lax.map(of_draw, flat, batch_size=BLOCK_SIZE))(flat)
    return {
        variable_name(name): np.asarray(x).reshape(*shape, *x.shape[1:])
        for name, x in found.items()
    }


def _normalized_sites(sites: Mapping[str, Any], samples: Mapping[str, Any]) -> list[str]:
    stochastic = {name: site for name, site in sites.items() if site["type"] == "sample"}
    missing = [
        name for name, site in stochastic.items() if not site["is_observed"] and name not in samples
    ]
    if missing:
        raise ValueError(
            f"log_likelihood=True needs a value of every latent site at each draw, but {missing} "
            "were not collected (or are enumerated, and summed over): run without '~' in "
            "extra_fields, or draw them with numpyro.contrib.funsor.infer_discrete."
        )
    data = [name for name, site in stochastic.items() if is_observed(site)]
    unknown = [name for name in data if is_unnormalized(sites[name]["fn"])]
    if len(unknown) == len(data):
        raise ValueError(
            f"log_likelihood=True needs an observed site with a normalised density; of {data} "
            f"{unknown} are known up to a constant only: give the distribution its log_normalizer."
        )
    if unknown:
        warnings.warn(
            f"The observed sites {unknown} have no log_likelihood: their densities are known up to "
            "a constant only. Give the distributions their log_normalizer.",
            UserWarning,
            stacklevel=4,
        )
    return [name for name in data if name not in unknown]
