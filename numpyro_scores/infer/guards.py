# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Guards against posteriors that would be wrong in silence."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.distributions import Distribution
from numpyro.distributions.distribution import TransformedDistribution
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.mcmc import MCMCKernel
from numpyro.ops.provenance import eval_provenance

from numpyro_scores.distributions import ScoreDistribution
from numpyro_scores.distributions._wrapped import base_of


def check_model(kernel: str, model: Any) -> None:
    """
    Raise unless `model` is a function that may be a NumPyro model.

    :raises TypeError: if it is a distribution, a kernel or a class of either, or is not callable.
    """
    if isinstance(model, Distribution):
        raise TypeError(
            f"{kernel} takes a NumPyro model, a function that samples, but got the distribution "
            f"{type(model).__name__}: def model(): numpyro.sample('x', prior)."
        )
    kind = model if isinstance(model, type) else type(model)
    if issubclass(kind, MCMCKernel | Distribution):
        raise TypeError(
            f"{kernel} takes a NumPyro model, a function that samples, but got "
            f"{'the class ' if isinstance(model, type) else ''}{kind.__name__}: {kernel}(model)."
        )
    if not callable(model):
        raise TypeError(
            f"{kernel} takes a NumPyro model, a function that samples, but got {model!r}."
        )


def sites_at(model: Callable, args: tuple, kwargs: dict, values: Any) -> dict[str, Any]:
    """The trace of a model at constrained values of its latent sites, of which none is drawn."""
    # The key is for models that ask for one.
    seeded = substitute(seed(model, random.key(0)), data=values)
    return trace(seeded).get_trace(*args, **kwargs)


def check_not_empty(kernel: str, z: Any) -> None:
    """Raise if there is no number to sample."""
    if not any(jnp.size(leaf) for leaf in jax.tree.leaves(z)):
        which = f"only {sorted(z)} of size 0" if isinstance(z, dict) and z else "none"
        raise ValueError(
            f"{kernel} needs a continuous latent site, but the model has {which}: draw from a "
            "model without one with numpyro.infer.Predictive."
        )


def is_unnormalized(fn: Any) -> bool:
    """Whether the `log_prob` of a distribution leaves a normaliser out."""
    return bool(unnormalized_parts(fn))


def unnormalized_parts(fn: Any) -> list[Any]:
    """
    The distributions whose parameters decide what a `log_prob` leaves out: an unnormalised one
    itself, that beneath a transform, whose Jacobian `log_prob` knows, the components of a mixture,
    and with an unnormalised component its weights.
    """
    fn = base_of(fn)
    if isinstance(fn, ScoreDistribution) or getattr(fn, "log_normalizer", 0) is None:
        return [fn]
    found = []
    for name in ("base_dist", "component_distribution", "component_distributions"):
        beneath = getattr(fn, name, ())
        for part in beneath if isinstance(beneath, list | tuple) else (beneath,):
            found += unnormalized_parts(part)
    if found and hasattr(fn, "mixing_distribution"):
        return [*found, fn.mixing_distribution]
    # What else is built on an unnormalised one, inflated or truncated, has constants of its own.
    return found if isinstance(fn, TransformedDistribution) or not found else [fn]


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
        sites = sites_at(model, model_args, kwargs, values)
        return {
            name: [_at_a_constant(part) for part in unnormalized_parts(site["fn"])]
            for name, site in sites.items()
            if site["type"] == "sample" and is_of_interest(site)
        }

    latent = eval_provenance(log_probs, **{**conditioned, **values})
    united = {name: frozenset().union(*sources) for name, sources in latent.items()}
    return {name: names for name, names in united.items() if names}


def _at_a_constant(fn: Any) -> Array:
    """The log density at a constant: what it depends on are the parameters."""
    return jnp.sum(fn.log_prob(jnp.ones(fn.shape(), int if fn.support.is_discrete else None)))


def dependencies(
    model: Callable, model_args: tuple, model_kwargs: dict, values: dict[str, Array]
) -> dict[str, frozenset[str]]:
    """
    The other latent sites that the density of each depends on, by NumPyro's provenance.

    :param values: constrained values of the latent sites.
    """

    def log_probs(**values):
        sites = sites_at(model, model_args, model_kwargs, values)
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


def check_supports(
    kernel: str, model: Callable, model_args: tuple, model_kwargs: dict, values: dict[str, Array]
) -> None:
    """
    Raise if the support of a site depends on one that another block of Gibbs moves: the chain keeps
    unconstrained values, and the site would move along, without the density of such a move.

    :param values: constrained values of the latent sites of this block.
    """
    conditioned = model_kwargs.get(GIBBS_SITES_KWARG, {})
    if not conditioned:
        return

    def bounds(**others):
        kwargs = {**model_kwargs, GIBBS_SITES_KWARG: others}
        sites = sites_at(model, model_args, kwargs, values)
        return {name: jax.tree.leaves(sites[name]["fn"].support) for name in values}

    for name, sources in eval_provenance(bounds, **conditioned).items():
        if others := sorted(frozenset().union(*sources)):
            raise ValueError(
                f"The support of {name!r} depends on {others}, which another block of Gibbs "
                f"moves, and {kernel} keeps {name!r} unconstrained: it would move along. Put them "
                f"into one block, or give {name!r} a support of its own, such as u ~ Uniform(0, 1) "
                f"and deterministic({name!r}, bound * u)."
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
