# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The trace of a model with discrete sites: where a chain starts, and the log densities there."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.distributions.distribution import Independent, MaskedDistribution
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.gibbs import GIBBS_SITES_KWARG, subsample_plate_sizes
from numpyro.infer.initialization import init_to_uniform
from numpyro.ops.provenance import eval_provenance

from numpyro_scores._validation import is_concrete
from numpyro_scores.distributions._wrapped import base_of
from numpyro_scores.distributions.boltzmann.base import BlockDistribution
from numpyro_scores.distributions.boltzmann.joint_rbm import HiddenThenVisible, RestrictedBoltzmann
from numpyro_scores.infer.observations import check_observations

Values = dict[str, Array]


class Latent(NamedTuple):
    """
    A latent site at the start.

    - **fn** - its distribution, if that is discrete, or else None.
    - **value** - a value of it.
    - **forbids** - whether some of its states may have probability zero.
    - **is_enumerated** - whether the model asks for its enumeration.
    """

    fn: Any
    value: Array
    forbids: bool
    is_enumerated: bool


class Trace:
    """
    The sites of a model, for some arguments, at any values of its latent sites.

    - **model**, **args**, **kwargs** - the model and its arguments.
    - **conditioned** - values of the sites that other blocks of Gibbs update.
    """

    def __init__(self, model: Callable, args: tuple, kwargs: dict) -> None:
        self.model = model
        self.args = args
        self.kwargs = {k: v for k, v in kwargs.items() if k != GIBBS_SITES_KWARG}
        self.conditioned: Values = kwargs.get(GIBBS_SITES_KWARG, {})
        self._run = partial(model, *args, **kwargs)

    def __call__(self, values: Values) -> Any:
        # Nothing is drawn: the key is for models that ask for one.
        return trace(substitute(seed(self._run, random.key(0)), data=values)).get_trace()

    def start(self, rng_key: Array, allowed: bool = True) -> Any:
        """At values to start a chain from; `allowed` ones are looked for if a state may not be."""
        init = partial(init_to_states, allowed=allowed)
        started = substitute(seed(self._run, rng_key), substitute_fn=init)
        return trace(started).get_trace()

    def latent(self, rng_key: Array, kernel: str) -> dict[str, Latent]:
        """
        The latent sites at the start, in the order of the model.

        :raises ValueError: if one is subsampled, or data do not fit their distribution.
        """
        enumerated: dict[str, bool] = {}

        def run(key: Array, allowed: bool) -> dict[str, tuple[Any, Array]]:
            sites = self.start(key, allowed)
            subsampled = sorted(subsample_plate_sizes(sites))
            if subsampled:
                raise ValueError(
                    f"{kernel} cannot subsample: the plates {subsampled} have a subsample_size."
                )
            check_observations(sites)
            found = {}
            for name, site in sites.items():
                if site["type"] == "sample" and not site["is_observed"]:
                    fn = site["fn"] if site["fn"].support.is_discrete else None
                    found[name] = (fn, jnp.asarray(site["value"]))
                    enumerated[name] = site["infer"].get("enumerate") == "parallel"
            return found

        # One program in place of many small ones, where nothing else is compiled yet.
        program = jax.jit(run, static_argnames="allowed")
        found = program(rng_key, allowed=False)
        forbids = {name: _forbids(fn) for name, (fn, _) in found.items()}
        if any(forbids.values()):
            found = program(rng_key, allowed=True)
        return {name: Latent(*found[name], forbids[name], enumerated[name]) for name in enumerated}


def unsummed_log_prob(site: Any, num_axes: int) -> Array:
    """The log density of a site of a trace, before it is summed over some axes of its event."""
    log_prob = _log_prob(site["fn"], site["value"], num_axes)
    if site["scale"] is None:
        return log_prob
    scale = jnp.reshape(site["scale"], (*jnp.shape(site["scale"]), *[1] * num_axes))
    # A power of zero leaves a density out, where that is zero too.
    return scale * jnp.where(scale == 0, 0.0, log_prob)


def _log_prob(fn: Any, value: Array, num_axes: int) -> Array:
    if num_axes == 0:
        return fn.log_prob(value)
    if isinstance(fn, Independent):
        n = fn.reinterpreted_batch_ndims
        if num_axes >= n:
            return _log_prob(fn.base_dist, value, num_axes - n)
        return fn.base_dist.to_event(n - num_axes).log_prob(value)
    if isinstance(fn, MaskedDistribution):
        log_prob = _log_prob(fn.base_dist, value, num_axes)
        mask = jnp.reshape(fn._mask, jnp.shape(fn._mask) + (1,) * num_axes)
        return jnp.where(mask, log_prob, 0.0)
    return _log_prob(fn.base_dist, value, num_axes)  # an ExpandedDistribution


def blocks_of(fn: Any) -> Any:
    """The distribution beneath, if its sites fall into blocks: see `BlockDistribution`."""
    d = base_of(fn)
    if isinstance(d, RestrictedBoltzmann):
        return HiddenThenVisible(d) if d.is_discrete else None
    return d if isinstance(d, BlockDistribution) else None


def _forbids(fn: Any) -> bool:
    if fn is None or blocks_of(fn) is None:
        return False
    leaves = jax.tree.leaves(fn)
    return not all(map(is_concrete, leaves)) or any(np.any(np.isinf(x)) for x in leaves)


def init_to_states(site: Any, allowed: bool = True) -> Any:
    """The sites of a `BlockDistribution` at random; others as NumPyro would start them."""
    if site["type"] == "sample" and not site["is_observed"]:
        blocks = blocks_of(site["fn"])
        if blocks is not None:
            shape = (*site["kwargs"]["sample_shape"], *site["fn"].shape())
            copies = shape[: len(shape) - len(base_of(site["fn"]).event_shape)]
            return _random_point(blocks, site["kwargs"]["rng_key"], copies, allowed)
        return init_to_uniform(site)


# One program in place of many small ones, where nothing else is compiled yet.
@partial(jax.jit, static_argnames=("copies", "allowed"))
def _random_point(blocks: Any, key: Array, copies: tuple[int, ...], allowed: bool) -> Array:
    return blocks.random_point(key, copies, allowed=allowed)


def support_sources(name: str, values: Values, trace_at: Trace) -> list[str]:
    """The latent sites that the support of a site depends on, by NumPyro's provenance."""

    def bounds(**values: Array) -> list[Array]:
        return [jnp.asarray(x) for x in jax.tree.leaves(trace_at(values)[name]["fn"].support)]

    return sorted(frozenset().union(*eval_provenance(bounds, **values)))
