# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a kernel needs to know of a model: its sites, and its density as one of a vector."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import constrain_fn, potential_energy, transform_fn
from numpyro.primitives import Messenger

from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.handlers import denoised, latent_prior, noise_conditional_prior, noise_level
from numpyro_scores.infer.guards import sites_at
from numpyro_scores.infer.langevin.score_sites import score_distribution, target_of
from numpyro_scores.infer.langevin.targets import Target
from numpyro_scores.infer.observations import check_observations, check_starts
from numpyro_scores.infer.parts import (
    diffusion_by_score,
    likelihood_alone,
    likelihood_to_power,
    without_priors,
    wrapped,
)


class LatentSites(NamedTuple):
    """
    - **transforms** - from unconstrained to constrained values, by name; continuous sites.
    - **discrete** - names of discrete latent sites that are not enumerated.
    - **enumerated** - names of those that are.
    - **processes** - the noise processes of the noise-conditional priors, by name.
    - **levels** - and the noise levels of these priors.
    - **by_score** - names of the sites, observed ones too, of a `ScoreDistribution`.
    - **has_deterministic** - whether the model has deterministic sites.
    - **dynamic_support** - whether a support has bounds that may depend on other values.
    - **params** - values of `numpyro.param` and of the state of a `numpyro.module`.
    """

    transforms: Mapping[str, Any] = {}
    discrete: tuple[str, ...] = ()
    enumerated: tuple[str, ...] = ()
    processes: Mapping[str, Any] = {}
    levels: Mapping[str, Any] = {}
    by_score: tuple[str, ...] = ()
    has_deterministic: bool = False
    dynamic_support: bool = False
    params: Mapping[str, Any] = {}

    @classmethod
    def of(
        cls,
        model: Callable,
        rng_key: Array,
        init_strategy: Callable,
        model_args: tuple,
        model_kwargs: dict,
    ) -> tuple["LatentSites", dict[str, Array]]:
        """
        Run the model once, with values by a NumPyro initialisation strategy; return the sites and
        these values, constrained.

        :raises ValueError: if the data of an observed site, or the value of a latent one, are not
            of its shape.
        :raises TypeError: if data are no array.
        """
        seeded = substitute(seed(model, rng_key), substitute_fn=init_strategy)
        model_trace = trace(seeded).get_trace(*model_args, **model_kwargs)
        latent = {
            name: site
            for name, site in model_trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        check_starts(latent)
        check_observations(model_trace)
        continuous = {
            name: site for name, site in latent.items() if not site["fn"].support.is_discrete
        }
        enumerated = [
            name
            for name, site in latent.items()
            if name not in continuous and site["infer"].get("enumerate") == "parallel"
        ]
        priors = {name: noise_conditional_prior(site["fn"]) for name, site in continuous.items()}
        values = {name: site["value"] for name, site in continuous.items()}
        sites = cls(
            transforms={name: biject_to(site["fn"].support) for name, site in continuous.items()},
            discrete=tuple(name for name in latent if name not in {*continuous, *enumerated}),
            enumerated=tuple(enumerated),
            processes={name: p.process for name, p in priors.items() if p is not None},
            levels={name: p.sigma for name, p in priors.items() if p is not None},
            by_score=tuple(
                name
                for name, site in model_trace.items()
                if site["type"] == "sample" and score_distribution(site["fn"]) is not None
            ),
            has_deterministic=any(site["type"] == "deterministic" for site in model_trace.values()),
            dynamic_support=any(_is_dynamic(site["fn"].support) for site in continuous.values()),
            params={
                name: site["value"]
                for name, site in model_trace.items()
                if site["type"] in ("param", "mutable")
            },
        )
        return sites, values

    @property
    def is_replayed(self) -> bool:
        """Whether draws become values of the sites only by running the model."""
        return self.has_deterministic or self.dynamic_support

    def unconstrained(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """From constrained values of the continuous sites."""
        return transform_fn(self.transforms, values, invert=True)

    def density_model(self, model: Callable) -> Callable:
        """The model as its density is asked for, without a `seed`: as NumPyro prepares it."""
        model = default_key(substitute(model, data=dict(self.params)))
        # Enumerated sites are summed over in the density, and drawn where the model is replayed.
        return seed(model, random.key(0)) if self.enumerated else model

    def check_continuous(self, kernel: str, *, enumerates: bool = True) -> None:
        """
        Raise if the model has a discrete latent site: Langevin dynamics needs a gradient.

        :param enumerates: whether the kernel sums over enumerated sites.
        """
        names = list(self.discrete if enumerates else self.discrete + self.enumerated)
        if names:
            way_out = ", or enumerate them with infer={'enumerate': 'parallel'}"
            raise ValueError(
                f"{kernel} needs continuous latent sites, but {names} are discrete. Sample them "
                f"with a block of their own, numpyro.infer.Gibbs([(DiscreteGibbs(model), {names}), "
                f"({kernel}(model), None)]){way_out if enumerates else ''}."
            )


def _is_dynamic(support: Any) -> bool:
    # A bound that is an array may be a function of another site, within `independent` too.
    return any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(support))


class default_key(Messenger):
    """A key for whatever asks for one outside of a `seed`, as NumPyro's own kernels have it."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "prng_key" and msg["value"] is None:
            msg["value"] = random.key(0)


class FlatModel:
    """
    A model with its arguments, as functions of one vector: the unconstrained values of all sites.

    :param model: a NumPyro model with continuous latent sites.
    :param args: its arguments, which may be tracers.
    :param kwargs: its keyword arguments.
    :param like: unconstrained values by site, of which only the shapes matter; by default the model
        is looked at for them.
    """

    def __init__(self, model: Callable, args: tuple, kwargs: dict, like: Any = None):
        self.model, self._args, self._kwargs = model, args, kwargs
        if like is None:
            shapes = jax.eval_shape(self._somewhere)  # nothing is computed
            like = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        self.unravel: Callable[[Array], dict[str, Array]] = ravel_pytree(like)[1]

    def under(self, messenger: Callable, **settings: Any) -> "FlatModel":
        """The model under a messenger that leaves its latent sites as they are."""
        found = copy.copy(self)
        found.model = wrapped(messenger, self.model, **settings)
        return found

    def _look(self, model, key, init_strategy):
        sites, values = LatentSites.of(model, key, init_strategy, self._args, self._kwargs)
        return sites.unconstrained(values)

    def _somewhere(self):
        return self._look(self.model, random.key(0), init_to_uniform)

    def flat(self) -> Array:
        """A vector of the right length and dtype."""
        return ravel_pytree(self._somewhere())[0]

    def draw(self, key: Array, given: Mapping[str, Array], sigma: Any = None) -> Array:
        """
        A draw of the latent sites from the prior.

        :param given: values of some of the sites, which are taken as they are.
        :param sigma: the noise level of diffusion priors; by default their own.
        """
        model = self.model if sigma is None else wrapped(noise_level, self.model, sigma=sigma)
        try:
            return ravel_pytree(self._look(model, key, lambda site: given.get(site["name"])))[0]
        except NotImplementedError as error:
            raise ValueError(
                "Particles start from draws of the prior, and a latent site cannot be drawn from: "
                "use a proper prior, or give TemperedSMC draws of it, run(key, ..., prior_draws="
                f"{{site: draws}}), of a long chain for example. ({error!r})"
            ) from error

    def potential(self, model: Callable) -> Callable[[Array], Array]:
        """The potential energy of a variant of the model."""
        # The key is for what starts at random and is then replaced, as the weights of a network.
        seeded = seed(model, random.key(0))
        return lambda x: potential_energy(seeded, self._args, self._kwargs, self.unravel(x))

    def log_likelihood(self, x: Array) -> Array:
        """The log density of observed sites and factors, -inf where it is not a number."""
        value = -self.potential(likelihood_alone(self.model))(x)
        return jnp.where(value < jnp.inf, value, -jnp.inf)

    def tempered(self, power: Any, like: Array, rule: SegmentIntegral | LineIntegral) -> Target:
        r"""The potential energy of :math:`p(z)\, p(y | z)^\beta`; shape and dtype of `like`."""
        model = wrapped(diffusion_by_score, likelihood_to_power(self.model, power))
        return target_of(self.potential(model), like, rule)

    def energy(self, x: Array) -> Array:
        """
        The potential energy without the noise-conditional priors: minus the log likelihood and the
        log density of the other sites.
        """
        return self.potential(without_priors(self.model))(x)

    def denoise(self, x: Array, sigma: Any) -> Array:
        """The vector with the entries of the noise-conditional priors denoised."""
        found = _denoised_values(noise_level(self.model, sigma=sigma))
        self.potential(found)(x)  # never computed: its value is not used
        return ravel_pytree(self.unravel(x) | found.values)[0]

    def sites(self, x: Array) -> dict[str, Any]:
        """The trace of the model at `x`."""
        return self.trace_of(self.unravel(x))

    def trace_of(self, z: dict[str, Array]) -> dict[str, Any]:
        """The trace of the model at unconstrained values by site."""
        values = constrain_fn(seed(self.model, random.key(0)), self._args, self._kwargs, z)
        return sites_at(self.model, self._args, self._kwargs, values)

    def constrained(self, x: Array) -> dict[str, Array]:
        """The values of latent and deterministic sites at `x`."""
        z = self.unravel(x)
        seeded = seed(self.model, random.key(0))
        return constrain_fn(seeded, self._args, self._kwargs, z, return_deterministic=True)


class _denoised_values(Messenger):
    """Note the denoised value of each latent noise-conditional prior."""

    def __init__(self, fn: Callable | None = None):
        self.values: dict[str, Array] = {}
        super().__init__(fn)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if latent_prior(msg) is not None:
            self.values[msg["name"]] = denoised(msg["fn"], msg["value"])
