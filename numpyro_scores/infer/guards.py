# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Guards against posteriors that would be wrong in silence."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.distributions import Distribution
from numpyro.distributions.distribution import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
)
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.mcmc import MCMCKernel
from numpyro.ops.provenance import eval_provenance

from numpyro_scores._validation import is_concrete
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


def check_observations(model_trace: Any) -> None:
    """
    Raise if an observation is complex, is none that its discrete distribution could make, or does
    not have the shape of its distribution: NumPyro broadcasts the two, so that data count many
    times. Distributions may be smaller than the data, `Normal(mean[:, None], 1)` of several
    columns, and a single number is a datum that all share.
    """
    for name, site in model_trace.items():
        if site["type"] != "sample" or not site["is_observed"]:
            continue
        fn, shape = site["fn"], jnp.shape(site["value"])
        if jnp.iscomplexobj(site["value"]):
            raise TypeError(
                f"The observation of site {name!r} is complex, and NumPyro's distributions are of "
                "real numbers: stack its parts as the output of ns.inverse.Fourier has them, "
                "jnp.stack([y.real, y.imag], axis=-1)."
            )
        is_shared = shape == () and fn.event_shape == ()
        is_of_a_factor = 0 in shape
        if not (is_shared or is_of_a_factor or _fits(shape, fn)):
            raise ValueError(
                f"The observation of site {name!r} has shape {shape}, but its distribution has "
                f"{fn.shape()} (batch {fn.batch_shape}, event {fn.event_shape}), and NumPyro would "
                f"broadcast them. Give the observation the shape {fn.shape()}, with any batch axes "
                "before, or the distribution that of the data: the output of a forward operator "
                "has its out_shape. If data are to count repeatedly: jnp.broadcast_to(y, ...)."
            )
        if not is_of_a_factor:
            _check_states(name, fn, site["value"])


def _check_states(name: str, fn: Any, value: Any) -> None:
    """Raise if an observation is outside of a discrete support, where it can be looked at."""
    # Of a continuous one NumPyro's own validation speaks; a table looked up at a state that there
    # is not says nothing.
    if not fn.support.is_discrete:
        return
    inside = fn.support(value)
    seen = True
    while isinstance(fn, ExpandedDistribution | Independent | MaskedDistribution):
        if isinstance(fn, MaskedDistribution):
            seen = fn._mask
        fn = fn.base_dist
    if not (is_concrete(inside) and is_concrete(seen) and is_concrete(value)):
        return
    inside, seen = np.asarray(inside), np.asarray(seen)
    if seen.shape == inside.shape or seen.ndim == 0:
        inside = inside | ~seen
    elif not seen.all():
        return
    if not inside.all():
        raise ValueError(
            f"The observation of site {name!r} has values outside of the support of "
            f"{type(fn).__name__}, {fn.support}: it holds {_some_of(np.unique(value))}. Spins are "
            "-1 and +1 (2 * bits - 1), labels 0, 1, ...."
        )


def _some_of(values: np.ndarray) -> str:
    shown = ", ".join(str(value) for value in values[:5])
    return f"{shown}, ..." if values.size > 5 else shown


def _fits(shape: tuple[int, ...], fn: Any) -> bool:
    """Whether an observation has the event shape, and all that the batch shape asks for."""
    num_batch_axes = len(shape) - len(fn.event_shape)
    if num_batch_axes < len(fn.batch_shape) or shape[num_batch_axes:] != fn.event_shape:
        return False
    batch = shape[num_batch_axes - len(fn.batch_shape) : num_batch_axes]
    return all(size in (1, n) for size, n in zip(fn.batch_shape, batch, strict=True))


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
