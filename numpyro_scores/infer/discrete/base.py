# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How a kernel of discrete sites is wired to a model: its sites, their start, blocks of Gibbs."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.gibbs import GIBBS_SITES_KWARG, subsample_plate_sizes
from numpyro.infer.initialization import init_to_uniform
from numpyro.util import identity, is_prng_key

from numpyro_scores._validation import check_count, is_concrete
from numpyro_scores.distributions._wrapped import base_of
from numpyro_scores.distributions.boltzmann.base import BlockDistribution
from numpyro_scores.distributions.boltzmann.joint_rbm import HiddenThenVisible, RestrictedBoltzmann
from numpyro_scores.infer.discrete.elementwise import unsummed_log_prob
from numpyro_scores.infer.fields import by_position
from numpyro_scores.infer.guards import check_normalizers
from numpyro_scores.infer.kernel import ChainKernel, parted, same

Values = dict[str, Array]

# With so many elements a chain keeps a CPU busy and its cache full: 64 chains of 64 x 64 spins take
# 1.4 times as long side by side as one after the other.
ALONE = 2_000


class DiscreteState(NamedTuple):
    """
    - **i** - number of draws so far.
    - **z** - dict of the values of the kernel's sites.
    - **rng_key** - random key for the next draw.
    """

    i: Array
    z: Values
    rng_key: Array

    __getitem__ = by_position


class Latent(NamedTuple):
    """
    A latent site at the start.

    - **fn** - its distribution, if that is discrete, or else None.
    - **value** - a value of it.
    - **is_enumerated** - whether the model asks for its enumeration.
    """

    fn: Any
    value: Array
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
        self._run = partial(trace(model).get_trace, *args, **kwargs)

    def __call__(self, values: Values) -> Any:
        # Nothing is drawn: the key is for models that ask for one.
        with substitute(data=values), seed(rng_seed=random.key(0)):
            return self._run()

    def start(self, rng_key: Array) -> Any:
        """At values to start a chain from."""
        with substitute(substitute_fn=init_to_states), seed(rng_seed=rng_key):
            return self._run()

    def latent(self, rng_key: Array, kernel: str) -> dict[str, Latent]:
        """
        The latent sites at the start, in the order of the model.

        :raises ValueError: if one is subsampled.
        """
        enumerated: dict[str, bool] = {}

        def run(key: Array) -> dict[str, tuple[Any, Array]]:
            sites = self.start(key)
            subsampled = sorted(subsample_plate_sizes(sites))
            if subsampled:
                raise ValueError(
                    f"{kernel} cannot subsample: the plates {subsampled} have a subsample_size."
                )
            found = {}
            for name, site in sites.items():
                if site["type"] == "sample" and not site["is_observed"]:
                    fn = site["fn"] if site["fn"].support.is_discrete else None
                    found[name] = (fn, jnp.asarray(site["value"]))
                    enumerated[name] = site["infer"].get("enumerate") == "parallel"
            return found

        # One program in place of many small ones, where nothing else is compiled yet.
        found = jax.jit(run)(rng_key)
        return {name: Latent(*found[name], enumerated[name]) for name in enumerated}


class Planned(NamedTuple):
    """
    What a kernel has found out about its model; it holds for all arguments of the same shapes.

    - **settings** - what it depends on.
    - **names** - the sites that the kernel updates.
    - **plan** - how.
    """

    settings: tuple
    names: list[str]
    plan: Any


class DiscreteKernel(ChainKernel):
    """
    A kernel of the discrete sites of a model. A subclass looks at the trace of a model, `_plan`,
    and writes one chain, `_sample_chain`.
    """

    def __init__(self, model: Callable, num_steps: int):
        if not callable(model):
            raise ValueError(f"{type(self).__name__} needs a model, got {model!r}.")
        check_count("num_steps", num_steps)
        self._model = model
        self._num_steps = num_steps
        self._forget()

    def _forget(self) -> None:
        """Drop what `init` derives from the model."""
        self._planned: Planned | None = None
        self._sample_fn = None
        self._init_program = None

    @abstractmethod
    def _plan(self, fns: dict[str, Any], values: Values, trace_at: Trace) -> Any:
        """
        What the kernel does with its sites; nothing in it may depend on arrays.

        :param fns: the sites' distributions; those of continuous ones are None.
        :param values: of all latent sites.
        :param trace_at: the model, with no latent site conditioned.
        """

    def _owned(self, discrete: list[str], continuous: list[str]) -> list[str]:
        """The latent sites that the kernel updates."""
        if continuous:
            name = type(self).__name__
            raise ValueError(
                f"{name} updates discrete sites, but {continuous} are continuous. Give them a "
                f"kernel of their own, numpyro.infer.Gibbs([({name}(model), {discrete}), "
                f"(NUTS(model), {continuous})])."
            )
        if not discrete:
            raise ValueError(f"{type(self).__name__} found no discrete latent site in the model.")
        return discrete

    @property
    def default_fields(self) -> tuple[str, ...]:
        return ("z",)

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        """
        The first state, of one chain or, given a batch of keys, of as many: sites with blocks at
        states drawn uniformly, others at a draw from their prior, unless `init_params` has them.

        :raises ValueError: if the model has latent sites that the kernel cannot update, or
            `init_params` does not fit.
        """
        model_kwargs = {} if model_kwargs is None else model_kwargs
        self._look(model_args, model_kwargs)
        names = self._found.names

        def start(key):
            sites = self._trace_at(model_args, model_kwargs).start(key)
            return {name: jnp.asarray(sites[name]["value"]) for name in names}

        if is_prng_key(rng_key):
            key_start, key_chain = random.split(rng_key)
        else:
            key_start, key_chain = jnp.swapaxes(jax.vmap(random.split)(rng_key), 0, 1)
            start = jax.vmap(start)
        z = jax.jit(start)(key_start)
        if init_params is not None:
            z |= _checked_start(init_params, z)
        return self._init_chains(key_chain, z, num_warmup, model_args, model_kwargs)

    def _trace_at(self, model_args: tuple, model_kwargs: dict | None) -> Trace:
        assert self._model is not None
        return Trace(self._model, model_args, model_kwargs or {})

    @property
    def _found(self) -> Planned:
        if self._planned is None:
            raise RuntimeError("The kernel's init must run first.")
        return self._planned

    def _look(self, model_args: tuple, model_kwargs: dict) -> None:
        """Plan once for all arguments of the same shapes."""
        # Values of the sites of other blocks of Gibbs may be tracers here: draw them anew.
        kwargs = {k: v for k, v in model_kwargs.items() if k != GIBBS_SITES_KWARG}
        conditioned = set(model_kwargs.get(GIBBS_SITES_KWARG, {}))
        arrays, rest, _ = parted((model_args, kwargs, sorted(conditioned)))
        settings = (*rest, *(f"{array.dtype}{array.shape}" for array in arrays))
        if self._planned is not None and same(self._planned.settings, settings):
            return
        with _outside_of_transformations():
            trace_at = self._trace_at(model_args, kwargs)
            latent = trace_at.latent(random.key(0), type(self).__name__)
            values = {name: site.value for name, site in latent.items()}
            check_normalizers(trace_at.model, model_args, kwargs, values)
            own = [name for name in latent if name not in conditioned]
            discrete = [name for name in own if latent[name].fn is not None]
            names = self._owned(discrete, [name for name in own if name not in discrete])
            enumerated = [n for n in names if latent[n].is_enumerated]
            if enumerated:
                raise ValueError(
                    f"{type(self).__name__} draws the sites {enumerated}, which the model asks to "
                    "enumerate: leave infer={'enumerate': 'parallel'} out."
                )
            fns = {name: latent[name].fn for name in names}
            self._planned = Planned(settings, names, self._plan(fns, values, trace_at))

    def _sample_chains(self, state, model_args, model_kwargs):
        size = sum(math.prod(x.shape[1:]) for x in state.z.values())
        if self._shared_fields or jax.default_backend() != "cpu" or size < ALONE:
            return super()._sample_chains(state, model_args, model_kwargs)
        return lax.map(lambda chain: self._sample_chain(chain, model_args, model_kwargs), state)

    def wrap_model(self, wrapper: Callable) -> "DiscreteKernel":
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        kernel._forget()
        return kernel

    def get_potential_fn(self, model_args: tuple = (), model_kwargs: dict | None = None):
        """The potential energy of the values of the kernel's sites."""
        trace_at = self._trace_at(model_args, model_kwargs)

        def potential_energy(z):
            sites = trace_at(z).values()
            return -sum(jnp.sum(unsummed_log_prob(s, 0)) for s in sites if s["type"] == "sample")

        return potential_energy

    def refresh(self, state, model_args, model_kwargs):
        """Nothing is kept from one draw to the next but the values."""
        return state

    def get_constrain_fn(self, model_args: tuple = (), model_kwargs: dict | None = None):
        return identity

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_planned": None}


def _outside_of_transformations() -> AbstractContextManager:
    """What follows is static, also where MCMC runs `init` under a transformation."""
    # Where there is none it would keep programs from being compiled as one.
    is_traced = not is_concrete(jnp.zeros(()))
    return jax.ensure_compile_time_eval() if is_traced else nullcontext()


def blocks_of(fn: Any) -> Any:
    """The distribution beneath, if its sites fall into blocks: see `BlockDistribution`."""
    d = base_of(fn)
    if isinstance(d, RestrictedBoltzmann):
        return HiddenThenVisible(d) if d.is_discrete else None
    return d if isinstance(d, BlockDistribution) else None


def init_to_states(site: Any) -> Any:
    """The sites of a `BlockDistribution` at random; others as NumPyro would start them."""
    if site["type"] == "sample" and not site["is_observed"]:
        blocks = blocks_of(site["fn"])
        if blocks is not None:
            return _random_point(blocks, site["kwargs"]["rng_key"], site["fn"].batch_shape)
        return init_to_uniform(site)


# One program in place of many small ones, where nothing else is compiled yet.
@partial(jax.jit, static_argnames="batch_shape")
def _random_point(blocks: Any, key: Array, batch_shape: tuple[int, ...]) -> Array:
    return blocks.random_point(key, batch_shape)


def _checked_start(init_params: Any, z: Values) -> Values:
    if not isinstance(init_params, dict) or not set(init_params) <= set(z):
        got = sorted(init_params) if isinstance(init_params, dict) else type(init_params)
        raise ValueError(
            f"init_params must be a dict of values of the sites {sorted(z)}, got {got}."
        )
    for name, value in init_params.items():
        if jnp.shape(value) != z[name].shape:
            raise ValueError(
                f"init_params[{name!r}] must have shape {z[name].shape}, got {jnp.shape(value)} "
                "(a leading axis of num_chains when there are several chains)."
            )
    return {name: jnp.asarray(x).astype(z[name].dtype) for name, x in init_params.items()}
