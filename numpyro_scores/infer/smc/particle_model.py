# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A model with its arguments, as functions of one flat vector of unconstrained values."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import constrain_fn, potential_energy, transform_fn

from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.handlers import noise_level
from numpyro_scores.infer.langevin.segments import Target, target_of
from numpyro_scores.infer.model import LatentSites
from numpyro_scores.infer.parts import (
    diffusion_by_score,
    likelihood_alone,
    likelihood_to_power,
    wrapped,
)


class ParticleModel:
    """
    :param model: a NumPyro model with continuous latent sites.
    :param model_args: its arguments, which may be tracers.
    :param model_kwargs: its keyword arguments.
    """

    def __init__(self, model: Callable, model_args: tuple, model_kwargs: dict):
        self.model, self._args, self._kwargs = model, model_args, model_kwargs
        shapes = jax.eval_shape(self._somewhere)  # nothing is computed
        self.unravel = ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))[1]

    def _somewhere(self):
        sites, values = LatentSites.of(
            self.model, random.key(0), init_to_uniform, self._args, self._kwargs
        )
        return transform_fn(sites.transforms, values, invert=True)

    def flat(self) -> Array:
        """A vector of the right length and dtype."""
        return ravel_pytree(self._somewhere())[0]

    def draw(self, key: Array, given: Mapping[str, Array]) -> Array:
        """
        A draw of the latent sites from the prior.

        :param given: values of some of the sites, which are taken as they are.
        """
        return ravel_pytree(self._prior_draw(key, given))[0]

    def _prior_draw(self, key, given, model=None):
        seeded = substitute(seed(model or self.model, key), data=given)
        try:
            sites = trace(seeded).get_trace(*self._args, **self._kwargs)
        except NotImplementedError as error:
            raise ValueError(
                "Particles start from draws of the prior, and a latent site cannot be drawn from: "
                "use a proper prior, or give TemperedSMC draws of it, run(key, ..., prior_draws="
                f"{{site: draws}}), of a long chain for example. ({error!r})"
            ) from error
        latent = {
            name: site
            for name, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        transforms = {name: biject_to(site["fn"].support) for name, site in latent.items()}
        values = {name: site["value"] for name, site in latent.items()}
        return transform_fn(transforms, values, invert=True)

    def noisy_draw(self, key: Array, sigma: Any) -> Array:
        """A draw from the prior, its diffusion priors at a noise level."""
        model = wrapped(noise_level, self.model, sigma=sigma)
        return ravel_pytree(self._prior_draw(key, {}, model))[0]

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

    def sites(self, x: Array) -> dict[str, Any]:
        """The trace of the model at `x`."""
        return self.trace_of(self.unravel(x))

    def trace_of(self, z: dict[str, Array]) -> dict[str, Any]:
        """The trace of the model at unconstrained values by site."""
        values = constrain_fn(seed(self.model, random.key(0)), self._args, self._kwargs, z)
        seeded = substitute(seed(self.model, random.key(0)), data=values)
        return trace(seeded).get_trace(*self._args, **self._kwargs)

    def constrained(self, x: Array) -> dict[str, Array]:
        """The values of latent and deterministic sites at `x`."""
        z = self.unravel(x)
        seeded = seed(self.model, random.key(0))
        return constrain_fn(seeded, self._args, self._kwargs, z, return_deterministic=True)
