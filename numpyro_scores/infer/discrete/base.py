# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How a kernel of discrete sites is wired to a model: its plan, its start, blocks of Gibbs."""

import math
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.util import identity, is_prng_key

from numpyro_scores._validation import check_count, is_concrete
from numpyro_scores.infer.discrete.model_trace import Trace, Values, unsummed_log_prob
from numpyro_scores.infer.guards import check_normalizers
from numpyro_scores.infer.kernel import ChainKernel, are_equal, arrays_and_rest, by_position

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


class Planned(NamedTuple):
    """
    What a kernel has found out about its model.

    - **settings** - the shapes of the arguments, and what is no array among them.
    - **names** - the sites that the kernel updates.
    - **forbids** - whether states may have probability zero, so that a start must be looked for.
    - **plan** - how.
    """

    settings: tuple
    names: list[str]
    forbids: bool
    plan: Any


class DiscreteKernel(ChainKernel):
    """
    A kernel of the discrete sites of a model. A subclass looks at the trace of a model, `_plan`,
    and writes one chain, `_sample_chain`.
    """

    _is_exact = True
    _default_fields = ("z",)

    def __init__(self, model: Callable, num_steps: int):
        if not callable(model):
            raise ValueError(f"{type(self).__name__} needs a model, got {model!r}.")
        check_count("num_steps", num_steps)
        self._model = model
        self._num_steps = num_steps
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._planned: Planned | None = None

    @abstractmethod
    def _plan(self, fns: dict[str, Any], values: Values, trace_at: Trace) -> Any:
        """
        What the kernel does with its sites; nothing in it may depend on arrays.

        :param fns: the sites' distributions; those of continuous ones are None.
        :param values: of all latent sites.
        :param trace_at: the model, with no latent site conditioned.
        """

    def _own_sites(self, discrete: list[str], continuous: list[str]) -> list[str]:
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

    def _first_values(self, rng_key, init_params, model_args, model_kwargs):
        """
        Sites with blocks at states drawn uniformly, others at a draw from their prior, unless
        `init_params` has them.
        """
        self.look(model_args, model_kwargs)

        def start(key):
            trace_at = self._trace_at(model_args, model_kwargs)
            sites = trace_at.start(key, self._found.forbids)
            return {name: jnp.asarray(sites[name]["value"]) for name in self._found.names}

        z = jax.jit(start if is_prng_key(rng_key) else jax.vmap(start))(rng_key)
        return z if init_params is None else z | _given_values(init_params, z)

    def _trace_at(self, model_args: tuple, model_kwargs: dict | None) -> Trace:
        assert self._model is not None
        return Trace(self._model, model_args, model_kwargs or {})

    @property
    def _found(self) -> Planned:
        if self._planned is None:
            raise RuntimeError("The kernel's init must run first.")
        return self._planned

    def look(self, model_args: tuple, model_kwargs: dict) -> None:
        """
        Find out what depends on what in the model, as `init` does. Values may decide it, of the
        arguments or of what the model reads elsewhere; so where arguments are traced, by `jax.jit`
        or `jax.vmap`, the kernel keeps what it has found outside for others of the same shapes.

        :raises ValueError: if the model has sites that do not fit, or, where arguments are traced,
            nothing was found outside.
        """
        # Values of the sites of other blocks of Gibbs may be tracers here: draw them anew.
        kwargs = {k: v for k, v in model_kwargs.items() if k != GIBBS_SITES_KWARG}
        conditioned = set(model_kwargs.get(GIBBS_SITES_KWARG, {}))
        arrays, rest, _ = arrays_and_rest((model_args, kwargs, sorted(conditioned)))
        dtypes = [jax.dtypes.canonicalize_dtype(x.dtype, True) for x in arrays]  # keys, too
        settings = (*rest, *(f"{d}{x.shape}" for d, x in zip(dtypes, arrays, strict=True)))
        if all(map(is_concrete, arrays)):
            self._planned = self._find(model_args, kwargs, conditioned, settings)
        elif self._planned is None or not are_equal(self._planned.settings, settings):
            try:
                self._planned = self._find(model_args, kwargs, conditioned, settings)
            except (jax.errors.JAXTypeError, jax.errors.UnexpectedTracerError) as error:
                name = type(self).__name__
                raise ValueError(
                    f"{name} looks at values to find out what depends on what in the model, but "
                    "its arguments are traced, by jax.jit or jax.vmap. Let the kernel look outside "
                    "first, at arguments of the same shapes, kernel.look(model_args, "
                    "model_kwargs); what it finds serves inside."
                ) from error

    def _find(
        self, model_args: tuple, kwargs: dict, conditioned: set[str], settings: tuple
    ) -> Planned:
        with _outside_of_transformations():
            trace_at = self._trace_at(model_args, kwargs)
            latent = trace_at.latent(random.key(0), type(self).__name__)
            values = {name: site.value for name, site in latent.items()}
            check_normalizers(trace_at.model, model_args, kwargs, values)
            own = [name for name in latent if name not in conditioned]
            discrete = [name for name in own if latent[name].fn is not None]
            names = self._own_sites(discrete, [name for name in own if name not in discrete])
            enumerated = [n for n in names if latent[n].is_enumerated]
            if enumerated:
                raise ValueError(
                    f"{type(self).__name__} draws the sites {enumerated}, which the model asks to "
                    "enumerate: leave infer={'enumerate': 'parallel'} out."
                )
            fns = {name: latent[name].fn for name in names}
            forbids = any(site.forbids for site in latent.values())
            return Planned(settings, names, forbids, self._plan(fns, values, trace_at))

    def _sample_chains(self, state, model_args, model_kwargs):
        size = sum(math.prod(x.shape[1:]) for x in state.z.values())
        if self._shared_fields or jax.default_backend() != "cpu" or size < ALONE:
            return super()._sample_chains(state, model_args, model_kwargs)
        return lax.map(lambda chain: self._sample_chain(chain, model_args, model_kwargs), state)

    def get_potential_fn(self, model_args: tuple = (), model_kwargs: dict | None = None):
        """The potential energy of the values of the kernel's sites."""
        trace_at = self._trace_at(model_args, model_kwargs)

        def potential_energy(z):
            sites = trace_at(z).values()
            return -sum(jnp.sum(unsummed_log_prob(s, 0)) for s in sites if s["type"] == "sample")

        return potential_energy

    def get_constrain_fn(self, model_args: tuple = (), model_kwargs: dict | None = None):
        return identity

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_planned": None}


def _outside_of_transformations() -> AbstractContextManager:
    """What follows is static, also where MCMC runs `init` under a transformation."""
    # Where there is none it would keep programs from being compiled as one.
    is_traced = not is_concrete(jnp.zeros(()))
    return jax.ensure_compile_time_eval() if is_traced else nullcontext()


def _given_values(init_params: Any, z: Values) -> Values:
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
