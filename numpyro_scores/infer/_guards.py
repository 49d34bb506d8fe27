# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Guards against posteriors that would be wrong in silence."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, random
from numpyro.distributions import Unit
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.ops.provenance import eval_provenance

from numpyro_scores.distributions import ScoreDistribution
from numpyro_scores.distributions._wrapped import base_of


def is_unnormalized(fn: Any) -> bool:
    """Whether the `log_prob` of a distribution leaves its normaliser out."""
    fn = base_of(fn)
    return isinstance(fn, ScoreDistribution) or getattr(fn, "log_normalizer", 0) is None


def latent_normalizers(
    model: Callable,
    model_args: tuple,
    model_kwargs: dict,
    values: dict[str, Array],
    is_of_interest: Callable[[Any], bool] = lambda site: True,
) -> dict[str, frozenset[str]]:
    r"""
    The sites of unnormalised distributions whose parameters depend on latent sites, and on which.

    The density is :math:`\exp(-E_\theta(x)) / Z(\theta)`; when :math:`\theta` is inferred, a
    `log_prob` without :math:`\log Z(\theta)` is that of another model. What a value depends on is
    read from the model's trace by NumPyro's provenance; nothing is computed.

    :param values: constrained values of the latent sites.
    """
    conditioned = model_kwargs.get(GIBBS_SITES_KWARG, {})  # latent sites of other Gibbs blocks

    def log_probs(**values):
        kwargs = dict(model_kwargs)
        if conditioned:
            kwargs[GIBBS_SITES_KWARG] = {name: values[name] for name in conditioned}
        seeded = substitute(seed(model, random.key(0)), data=values)
        sites = trace(seeded).get_trace(*model_args, **kwargs)
        # At a constant in place of the site's value, what is left are the parameters.
        return {
            name: jnp.sum(site["fn"].log_prob(jnp.ones(jnp.shape(site["value"]))))
            for name, site in sites.items()
            if site["type"] == "sample" and is_unnormalized(site["fn"]) and is_of_interest(site)
        }

    latent = eval_provenance(log_probs, **{**conditioned, **values})
    return {name: names for name, names in latent.items() if names}


def dependencies(
    model: Callable, model_args: tuple, model_kwargs: dict, values: dict[str, Array]
) -> dict[str, frozenset[str]]:
    """
    The other latent sites that the density of each depends on, by NumPyro's provenance.

    :param values: constrained values of the latent sites.
    """

    def log_probs(**values):
        seeded = substitute(seed(model, random.key(0)), data=values)
        sites = trace(seeded).get_trace(*model_args, **model_kwargs)
        return {name: jnp.sum(sites[name]["fn"].log_prob(values[name])) for name in values}

    found = eval_provenance(log_probs, **values)
    return {name: sources - {name} for name, sources in found.items()}


def check_independent_priors(
    kernel: str,
    model: Callable,
    model_args: tuple,
    model_kwargs: dict,
    values: dict[str, Array],
    priors: Iterable[str],
    *,
    both_ways: bool = False,
) -> None:
    """
    Raise if one of these priors depends on another latent site or, `both_ways`, another on it.

    :param values: constrained values of the latent sites.
    """
    priors = set(priors)
    for name, sources in dependencies(model, model_args, model_kwargs, values).items():
        if (name in priors and sources) or (both_ways and sources & priors):
            raise ValueError(
                f"{kernel} needs noise-conditional priors that do not depend on other latent "
                f"sites{', nor these on them' if both_ways else ''}, but {name!r} depends on "
                f"{sorted(sources)}. AnnealedLangevin(model) takes such a model."
            )


def check_observations(model_trace: Mapping[str, Any]) -> None:
    """
    Raise if the data of an observed site are not of the shape of its distribution. NumPyro would
    broadcast both, `(3,)` and `(3, 1)` to `(3, 3)`, and count each number three times. One
    distribution for many numbers is another matter, and one number for all.
    """
    for name, site in model_trace.items():
        if site["type"] != "sample" or not site["is_observed"]:
            continue
        shape, data = tuple(site["fn"].shape()), jnp.shape(site["value"])
        if data == () or isinstance(base_of(site["fn"]), Unit):
            continue
        try:
            together = jnp.broadcast_shapes(shape, data)
        except ValueError:
            together = None
        if together != data:
            effect = "which do not fit" if together is None else f"which broadcast to {together}"
            raise ValueError(
                f"Site {name!r} is observed with shape {data}, but its distribution has shape "
                f"{shape}, {effect}. Give both one shape: reshape the data, or what the "
                "distribution is made of (the output of an operator)."
            )


def check_normalizers(
    model: Callable, model_args: tuple, model_kwargs: dict, values: dict[str, Array]
) -> None:
    """
    Raise if an unnormalised distribution has parameters that depend on a latent site, unless the
    site is marked for the exchange algorithm, `infer={"exchange": True}`.
    """
    varying = latent_normalizers(
        model, model_args, model_kwargs, values, lambda site: not site["infer"].get("exchange")
    )
    for name, latent in varying.items():
        raise ValueError(
            f"Site {name!r} has an unnormalised density whose parameters depend on the latent "
            f"sites {sorted(latent)}: its normaliser varies with them, and without it their "
            "posterior is wrong. Give the distribution its log_normalizer as a function of "
            f"{sorted(latent)}, fix these parameters, or sample them with ExchangeKernel: "
            f"numpyro.infer.Gibbs([(kernel, [{name!r}]), (ExchangeKernel(model), "
            f"{sorted(latent)})]), and sample({name!r}, ..., infer={{'exchange': True}})."
        )
