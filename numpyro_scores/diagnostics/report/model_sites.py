# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The latent sites of a run's model, and which of their elements have a density at all."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro import validation_enabled
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import log_density

from numpyro_scores.diagnostics.arviz.datasets import SAMPLE_DIMS, variable_name
from numpyro_scores.diagnostics.report.runs import Run
from numpyro_scores.infer.observations import check_observations

# Draws at which the density of each element is asked for.
NUM_POINTS = 3


class Sites(NamedTuple):
    """
    The latent sites of a run's model.

    - **names** - of those that were collected: from NumPyro's name to the posterior's.
    - **messages** - all latent sites, as the model's trace has them.
    - **discrete** - names of the discrete ones.
    - **point** - the values of a draw, by NumPyro's name.
    """

    names: dict[str, str]
    messages: dict[str, Any]
    discrete: tuple[str, ...]
    point: dict[str, Any]

    @property
    def not_collected(self) -> list[str]:
        return sorted(set(self.messages) - set(self.names))


def sites_of(run: Run, chain: int) -> Sites | str | None:
    """
    What the model has at the first draw of a chain; None without a model, and in words why if it
    cannot be called with what is known.
    """
    if run.model is None:
        return None
    point = {
        alias: jnp.asarray(draws[chain, 0])
        for name, draws in run.posterior.items()
        for alias in _aliases(name)
    }

    def other(site):
        # Messages of a `scan` or a `prng_key` have no name.
        is_latent = site["type"] == "sample" and not site["is_observed"]
        return init_to_uniform(site) if is_latent and site["name"] not in point else None

    # By data first, which a `scan` cuts along its axis.
    filled = substitute(substitute(seed(run.model, random.key(0)), substitute_fn=other), data=point)
    try:
        # A draw that is not finite has a line of its own.
        with validation_enabled(False):
            messages = trace(filled).get_trace(*run.args, **run.kwargs)
        check_observations(messages)
    except Exception as error:  # whatever a model raises when its data are not those of the run
        return f"the model cannot be looked at ({type(error).__name__}: {error})"
    latent = {
        name: site
        for name, site in messages.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    aliases = {alias: name for name in run.posterior for alias in _aliases(name)}
    names = {name: aliases[name] for name in latent if name in aliases}
    return Sites(
        names,
        latent,
        tuple(name for name, site in latent.items() if site["fn"].support.is_discrete),
        {site: run.posterior[name][chain, 0] for site, name in names.items()},
    )


def _aliases(name: str) -> list[str]:
    """What a site may be called whose variable has this name."""
    plain = name.removesuffix("_") if name.removesuffix("_") in SAMPLE_DIMS else name
    scoped = plain.replace(".", "/")
    assert variable_name(scoped) == plain
    return list(dict.fromkeys([name, plain, scoped]))


def without_density(run: Run, sites: Sites, chains: np.ndarray) -> dict[str, np.ndarray]:
    """
    The elements of continuous sites that the joint density does not depend on, by the posterior's
    names: a mask has left them out, as `obs_mask` does with the twin of what was observed. Their
    draws go where they like, and mean nothing.
    """
    masked = {
        name: _mask_of(sites.messages[name]) for name in sites.names if name not in sites.discrete
    }
    # A gradient of the whole model is dear, and nearly always there is no mask.
    if sites.not_collected or not len(chains) or not any(x.any() for x in masked.values()):
        return {}
    steps = np.linspace(0, run.num_draws - 1, NUM_POINTS).astype(int)
    of_steps = chains[np.arange(NUM_POINTS) % len(chains)]
    points = {site: run.posterior[name][of_steps, steps] for site, name in sites.names.items()}
    discrete = {name: points.pop(name) for name in sites.discrete if name in points}
    slopes = jax.jit(jax.vmap(jax.grad(partial(_log_density, run.model, run.args, run.kwargs))))(
        points, discrete
    )
    # A site that is uniform has a density, and no slope: the mask must have left it out.
    dead = {
        sites.names[name]: masked[name] & np.all(np.asarray(slope) == 0, axis=0)
        for name, slope in slopes.items()
    }
    return {name: flags for name, flags in dead.items() if flags.any()}


def _log_density(
    model: Callable | None,
    args: tuple,
    kwargs: Mapping[str, Any],
    point: dict[str, Array],
    discrete: dict[str, Array],
) -> Array:
    assert model is not None
    run = seed(model, random.key(0))
    return jnp.sum(log_density(run, args, dict(kwargs), {**point, **discrete})[0])


def _mask_of(site: Any) -> np.ndarray:
    """Whether a mask leaves out an element of a site's value."""
    fn, shape = site["fn"], np.shape(site["value"])
    left_out = np.zeros(shape, bool)
    while hasattr(fn, "base_dist"):
        if hasattr(fn, "_mask"):
            mask = np.broadcast_to(np.asarray(fn._mask), fn.batch_shape)
            left_out = left_out | ~mask.reshape(fn.batch_shape + (1,) * fn.event_dim)
        fn = fn.base_dist
    return left_out
