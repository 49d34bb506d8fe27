# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How a Langevin kernel is wired to a model: its potential energy, its start, blocks of Gibbs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.handlers import seed
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import constrain_fn, initialize_model, transform_fn
from numpyro.util import identity, is_prng_key

from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.guards import (
    check_model,
    check_normalizers,
    check_not_empty,
    check_supports,
)
from numpyro_scores.infer.kernel import ChainKernel
from numpyro_scores.infer.langevin.score_sites import target_of
from numpyro_scores.infer.langevin.targets import Target
from numpyro_scores.infer.model import LatentSites

PotentialFn = Callable[[Any], Array]


class LangevinKernel(ChainKernel):
    """
    A kernel in the unconstrained space of a model or of a potential energy. This class finds the
    potential; a subclass writes one chain, `_init_chain` and `_sample_chain`.
    """

    # Of kernels that ask for energies: how sites that are known by their score enter them.
    _segment_integral: SegmentIntegral | LineIntegral

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
        if model is not None:
            check_model(type(self).__name__, model)
        if not callable(init_strategy):
            raise TypeError(
                "init_strategy must be one of NumPyro's, such as numpyro.infer.init_to_median(), "
                f"got {init_strategy!r}."
            )
        self._model = model
        self._potential_fn = potential_fn
        self._init_strategy = init_strategy
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._sites = LatentSites()

    def _target(self, potential: PotentialFn, x: Array) -> Target:
        """What the steps of a kernel with a `segment_integral` move in."""
        if not self._sites.by_score:
            return Target(potential)
        return target_of(potential, x, self._segment_integral)

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict | None) -> Callable:
        if self._model is None:
            return identity
        if not self._sites.is_replayed:
            return partial(transform_fn, self._sites.transforms)
        model = self._sites.density_model(self._model)
        return partial(
            constrain_fn, model, model_args, model_kwargs or {}, return_deterministic=True
        )

    def get_constrain_fn(self, model_args: tuple = (), model_kwargs: dict | None = None):
        if self._model is None:
            return identity
        if not self._sites.dynamic_support:
            return partial(transform_fn, self._sites.transforms)
        # Gibbs asks without the values of other blocks, on which no support depends: any will do.
        model = seed(self._sites.density_model(self._model), random.key(0))
        return partial(constrain_fn, model, model_args, model_kwargs or {})

    def _first_values(self, rng_key, init_params, model_args, model_kwargs):
        name = type(self).__name__
        if self._potential_fn is None:
            z = self._init_from_model(rng_key, model_args, model_kwargs)
            if init_params is not None:
                z = given_values(init_params, z, self._sites, model_kwargs)
        elif init_params is None:
            raise ValueError(
                f"{name}(potential_fn=...) needs a start: pass init_params to "
                "MCMC.run, with a leading axis of num_chains when there are several chains."
            )
        else:
            z = jax.tree.map(_as_floating, init_params)
        check_not_empty(name, z)
        return z

    def refresh(self, state, model_args, model_kwargs):
        """Potential energy and gradient at the current point for other arguments of the model."""
        x, _, potential = self._flat(state.z, model_args, model_kwargs)
        potential_energy, grad = jax.value_and_grad(potential)(x)
        return state._replace(potential_energy=potential_energy, z_grad=grad)

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


def given_values(init_params: Any, z: Any, sites: LatentSites, model_kwargs: dict) -> Any:
    """
    The caller's unconstrained values.

    :param z: values of the same shapes, by site.
    :raises ValueError: if sites or shapes are others, or the values are complex.
    """
    if not isinstance(init_params, dict) or set(init_params) != set(z):
        got = sorted(init_params) if isinstance(init_params, dict) else type(init_params)
        raise ValueError(
            f"init_params must be a dict of unconstrained values for the latent sites "
            f"{sorted(z)}, got {got}."
        )
    if GIBBS_SITES_KWARG in model_kwargs:  # as a block of Gibbs they come constrained
        init_params = transform_fn(sites.transforms, init_params, invert=True)
    for name in z:
        if jnp.shape(init_params[name]) != jnp.shape(z[name]):
            raise ValueError(
                f"init_params[{name!r}] must have shape {jnp.shape(z[name])}, got "
                f"{jnp.shape(init_params[name])} (unconstrained values, with a leading axis "
                "of num_chains when there are several chains)."
            )
        if jnp.issubdtype(jnp.result_type(init_params[name]), jnp.complexfloating):
            raise ValueError(f"init_params[{name!r}] must be real, got complex numbers.")
    # Integers and booleans are numbers too, but have no gradient.
    return {name: jnp.asarray(init_params[name], z[name].dtype) for name in z}


def _as_floating(values: Any) -> Any:
    """Integers and booleans are numbers too, but have no gradient."""
    if jnp.issubdtype(jnp.result_type(values), jnp.inexact):
        return values
    return jnp.asarray(values, jnp.result_type(float))
