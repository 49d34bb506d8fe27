# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How a Langevin kernel is wired to a model: its potential energy, its start, blocks of Gibbs."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.handlers import seed
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import constrain_fn, initialize_model, transform_fn
from numpyro.util import identity, is_prng_key

from numpyro_scores.infer.guards import check_normalizers, check_supports
from numpyro_scores.infer.kernel import ChainKernel, check_model
from numpyro_scores.infer.model import LatentSites

PotentialFn = Callable[[Any], Array]


class LangevinKernel(ChainKernel):
    """
    A kernel in the unconstrained space of a model or of a potential energy. A subclass writes one
    chain, `_init_chain` and `_sample_chain`; this class finds the potential, and
    :class:`ChainKernel` maps chains (`chain_method="vectorized"` hands over a batch of keys).
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        init_strategy: Callable = init_to_uniform,
    ):
        if (model is None) == (potential_fn is None):
            raise ValueError(
                f"{type(self).__name__} needs either a model or a potential_fn, got "
                f"{'neither' if model is None else 'both'}."
            )
        check_model(type(self).__name__, model)
        self._model = model
        self._potential_fn = potential_fn
        self._init_strategy = init_strategy
        self._forget()

    def _forget(self) -> None:
        """Drop what `init` derives from the model."""
        self._sites = LatentSites()
        self._potential_fn_gen = None
        self._sample_fn = None

    def get_potential_fn(
        self, model_args: tuple = (), model_kwargs: dict | None = None
    ) -> PotentialFn:
        """The potential energy of unconstrained values, for these arguments of the model."""
        if self._potential_fn is not None:
            return self._potential_fn
        if self._potential_fn_gen is None:
            raise RuntimeError("get_potential_fn requires the kernel's init to have run.")
        return self._potential_fn_gen(*model_args, **(model_kwargs or {}))

    def _flat(self, z: Any, model_args: tuple, model_kwargs: dict):
        """The values `z` as one vector, its way back, and the potential energy of the vector."""
        potential_fn = self.get_potential_fn(model_args, model_kwargs)
        x, unravel = ravel_pytree(z)
        return x, unravel, lambda x: potential_fn(unravel(x))

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict | None) -> Callable:
        if self._model is None:
            return identity
        if not self._sites.is_replayed:
            return partial(transform_fn, self._sites.transforms)
        model = self._sites.prepared(self._model)
        return partial(
            constrain_fn, model, model_args, model_kwargs or {}, return_deterministic=True
        )

    def get_constrain_fn(self, model_args: tuple = (), model_kwargs: dict | None = None):
        if self._model is None:
            return identity
        if not self._sites.dynamic_support:
            return partial(transform_fn, self._sites.transforms)
        # Gibbs asks without the values of other blocks, on which no support depends: any will do.
        model = seed(self._sites.prepared(self._model), random.key(0))
        return partial(constrain_fn, model, model_args, model_kwargs or {})

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        """
        The first state, of one chain or, given a batch of keys, of as many.

        :raises ValueError: if `potential_fn` is used without `init_params`, if `init_params` does
            not fit the model, if a latent site is discrete, if an unnormalised density depends on
            a latent site, or if the potential energy or its gradient is not finite at the start.
        """
        model_kwargs = {} if model_kwargs is None else dict(model_kwargs)
        single_chain = is_prng_key(rng_key)
        if single_chain:
            key_model, key_chain = random.split(rng_key)
        else:
            key_model, key_chain = jnp.swapaxes(jax.vmap(random.split)(rng_key), 0, 1)
        if self._potential_fn is None:
            z = self._init_from_model(key_model, model_args, model_kwargs)
            if init_params is not None:
                z = self._check_init_params(init_params, z, model_kwargs)
        elif init_params is None:
            raise ValueError(
                f"{type(self).__name__}(potential_fn=...) needs a start: pass init_params to "
                "MCMC.run, with a leading axis of num_chains when there are several chains."
            )
        else:
            z = init_params
        return self._init_chains(key_chain, z, num_warmup, model_args, model_kwargs)

    def wrap_model(self, wrapper: Callable) -> "LangevinKernel":
        if self._model is None:
            raise ValueError("A kernel built from a potential_fn has no model to wrap.")
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        kernel._forget()
        return kernel

    def _init_from_model(self, rng_key: Array, model_args: tuple, model_kwargs: dict) -> Any:
        """Look at the model's sites and return unconstrained values to start from."""
        assert self._model is not None
        single_key = rng_key if is_prng_key(rng_key) else rng_key[0]
        self._sites, values = LatentSites.of(
            self._model, single_key, self._init_strategy, model_args, model_kwargs
        )
        self._sites.check_continuous(type(self).__name__)
        self._check_normalizers(model_args, model_kwargs, values)
        check_supports(type(self).__name__, self._model, model_args, model_kwargs, values)
        info = initialize_model(
            rng_key,
            self._model,
            init_strategy=self._init_strategy,
            dynamic_args=True,
            model_args=model_args,
            model_kwargs=model_kwargs,
        )
        self._potential_fn_gen = info.potential_fn
        return info.param_info.z

    def _check_normalizers(self, model_args: tuple, model_kwargs: dict, values: dict) -> None:
        """Raise if the values are of parameters with which an unknown normaliser varies."""
        assert self._model is not None
        check_normalizers(self._model, model_args, model_kwargs, values)

    def _check_init_params(self, init_params: Any, z: Any, model_kwargs: dict) -> Any:
        if not isinstance(init_params, dict) or set(init_params) != set(z):
            got = sorted(init_params) if isinstance(init_params, dict) else type(init_params)
            raise ValueError(
                f"init_params must be a dict of unconstrained values for the latent sites "
                f"{sorted(z)}, got {got}."
            )
        if GIBBS_SITES_KWARG in model_kwargs:  # as a block of Gibbs they come constrained
            init_params = transform_fn(self._sites.transforms, init_params, invert=True)
        init_params = {name: jnp.asarray(value) for name, value in init_params.items()}
        for name in z:
            if jnp.iscomplexobj(init_params[name]):
                raise ValueError(f"init_params[{name!r}] must be real numbers, got complex ones.")
            if jnp.shape(init_params[name]) != jnp.shape(z[name]):
                raise ValueError(
                    f"init_params[{name!r}] must have shape {jnp.shape(z[name])}, got "
                    f"{jnp.shape(init_params[name])} (unconstrained values, with a leading axis "
                    "of num_chains when there are several chains)."
                )
        return {name: value.astype(z[name].dtype) for name, value in init_params.items()}
