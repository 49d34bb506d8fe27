# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A model with diffusion priors taken apart: denoised values, and the density of all the rest."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy
from numpyro.primitives import Messenger

from numpyro_scores.handlers import denoised, latent_prior, noise_level
from numpyro_scores.infer.parts import without_priors


class Posterior(NamedTuple):
    """
    What a model says of one vector that holds the unconstrained values of all sites.

    - **energy** - `energy(x)`, the potential energy without the noise-conditional priors: minus the
      log likelihood and the log density of the other sites.
    - **denoise** - `denoise(x, sigma)`, the vector with the entries of the noise-conditional priors
      denoised.
    - **unravel** - back to a dict of sites.
    """

    energy: Callable[[Array], Array]
    denoise: Callable[[Array, Any], Array]
    unravel: Callable[[Array], dict[str, Array]]


def posterior_of(model: Any, z: dict[str, Array], args: tuple, kwargs: dict) -> Posterior:
    """
    :param model: a NumPyro model, its priors in coordinates of their own.
    :param z: values by site, only their shapes matter.
    """
    _, unravel = ravel_pytree(z)

    def energy(x):
        return potential_energy(without_priors(model), args, kwargs, unravel(x))

    def denoise(x, sigma):
        values = unravel(x)
        noted = _denoised_values(noise_level(model, sigma=sigma))
        potential_energy(noted, args, kwargs, values)  # never computed: its value is not used
        return ravel_pytree(values | noted.values)[0]

    return Posterior(energy, denoise, unravel)


class _denoised_values(Messenger):
    """Note the denoised value of each latent noise-conditional prior."""

    def __init__(self, fn: Callable | None = None):
        self.values: dict[str, Array] = {}
        super().__init__(fn)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if latent_prior(msg) is not None:
            self.values[msg["name"]] = denoised(msg["fn"], msg["value"])
