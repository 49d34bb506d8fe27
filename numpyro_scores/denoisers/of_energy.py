# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies of every noise level as denoisers."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import Denoiser, as_pytree, check_field, output_shape, unwrapped


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DenoiserOfEnergy:
    r"""
    The denoiser :math:`D(x, \sigma) = x - \sigma^2 \nabla_x U(x, \sigma)` of an energy of every
    noise level, :math:`U(x, \sigma) = -\log p_\sigma(x)`.

    :param energy: `energy(x, sigma) -> ()` of one unbatched point.
    """

    energy: Any

    @property
    def sigma_data(self) -> Any:
        """The standard deviation of the data that the energy was made for, or None."""
        return getattr(self.energy, "sigma_data", None)

    def __call__(self, x: Array, sigma: Any, *args: Any, **kwargs: Any) -> Array:
        force = jax.grad(self.energy)(x, sigma, *args, **kwargs)
        return x - jax.lax.convert_element_type(sigma, force.dtype) ** 2 * force


def as_denoiser(name: str, f: Any, x: Array, sigma: Any) -> Denoiser:
    r"""
    The denoiser that a function of a point and its noise level is or has, told by the shape of
    `f(x, sigma)`: that of `x` is the denoiser itself, `()` an energy :math:`U`, whose denoiser is
    :math:`x - \sigma^2 \nabla U`.

    :param x: a point, only its shape and dtype matter.
    :raises ValueError: if `f(x, sigma)` has another shape, or that of `x` is `()` and `f` is no
        :class:`DenoiserOfEnergy`.
    """
    if isinstance(found := unwrapped(f), DenoiserOfEnergy):
        return DenoiserOfEnergy(as_pytree("energy", found.energy))
    if getattr(output_shape(name, f, x, sigma), "shape", None) == ():
        if jnp.shape(x) == ():
            raise ValueError(
                f"{name} of points of shape () may be a denoiser or an energy: both return one "
                "number. Pass an energy as ns.denoisers.DenoiserOfEnergy(energy); for a denoiser "
                "let a point have the shape (1,), event_shape=1, and be x[0] in the model."
            )
        return DenoiserOfEnergy(f)
    check_field(name, f, x, sigma, otherwise=" Or to shape (): then it is an energy.")
    return f


def energy_of(denoiser: Any) -> Any:
    """The energy that a denoiser is of, or None."""
    return denoiser.energy if isinstance(denoiser, DenoiserOfEnergy) else None
