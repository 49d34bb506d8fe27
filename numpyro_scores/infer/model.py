# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a kernel needs to know about the sites of a model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, random
from numpyro.distributions import biject_to
from numpyro.handlers import seed, substitute, trace
from numpyro.primitives import Messenger

from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer.guards import check_observations


class LatentSites(NamedTuple):
    """
    - **transforms** - from unconstrained to constrained values, by name; continuous sites.
    - **discrete** - names of discrete latent sites that are not enumerated.
    - **enumerated** - names of those that are.
    - **processes** - the noise processes of the noise-conditional priors, by name.
    - **levels** - and the noise levels of these priors.
    - **has_deterministic** - whether the model has deterministic sites.
    - **dynamic_support** - whether a support has bounds that may depend on other values.
    - **params** - values of `numpyro.param` and of the state of a `numpyro.module`.
    """

    transforms: Mapping[str, Any] = {}
    discrete: tuple[str, ...] = ()
    enumerated: tuple[str, ...] = ()
    processes: Mapping[str, Any] = {}
    levels: Mapping[str, Any] = {}
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

        :raises ValueError: if the data of an observed site are not of its shape.
        """
        seeded = substitute(seed(model, rng_key), substitute_fn=init_strategy)
        model_trace = trace(seeded).get_trace(*model_args, **model_kwargs)
        check_observations(model_trace)
        latent = {
            name: site
            for name, site in model_trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
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

    def prepared(self, model: Callable) -> Callable:
        """The model as its density is asked for, without a `seed`: as NumPyro prepares it."""
        model = default_key(substitute(model, data=dict(self.params)))
        # Enumerated sites are summed over in the density, and drawn where the model is replayed.
        return seed(model, random.key(0)) if self.enumerated else model

    def check_continuous(self, kernel: str, *, enumerates: bool = True) -> None:
        """
        Raise if the model has a discrete latent site: Langevin dynamics needs a gradient.

        :param enumerates: whether the kernel sums over enumerated sites.
        """
        if not (self.transforms or self.discrete or self.enumerated):
            raise ValueError(
                f"{kernel} needs a latent site, but the model has none to sample: all its sites "
                "are observed. Predictive(model, num_samples=...) draws what it has."
            )
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
