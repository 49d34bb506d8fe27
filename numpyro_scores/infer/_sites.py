# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a kernel needs to know about the latent sites of a model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax import Array
from numpyro.distributions import biject_to, constraints
from numpyro.handlers import seed, substitute, trace

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
    - **dynamic_support** - whether a support depends on other values.
    """

    transforms: Mapping[str, Any] = {}
    discrete: tuple[str, ...] = ()
    enumerated: tuple[str, ...] = ()
    processes: Mapping[str, Any] = {}
    levels: Mapping[str, Any] = {}
    has_deterministic: bool = False
    dynamic_support: bool = False

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
        )
        return sites, values

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


def _is_dynamic(support: constraints.Constraint) -> bool:
    # As NumPyro: a bound that is an array may be a function of another site.
    bounds = (getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound"))
    return any(not isinstance(bound, int | float) for bound in bounds)
