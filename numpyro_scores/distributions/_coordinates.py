# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The unconstrained coordinates of NumPyro's supports."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import IdentityTransform, IndependentTransform

from numpyro_scores._coordinates import Coordinates, coordinates_of


def coordinates_of_support(support: constraints.Constraint | None) -> Coordinates | None:
    """
    By NumPyro's `biject_to`, the map that its kernels move by; None for the real numbers.

    :raises ValueError: of a support that NumPyro has no such map of.
    """
    if support is None:
        return None
    try:
        # Bounds may be leaves of the distribution that is trained; they are no parameters.
        transform = biject_to(lax.stop_gradient(support))
    except NotImplementedError as error:
        raise ValueError(
            f"NumPyro has no map from unconstrained coordinates onto the support {support} "
            "(numpyro.distributions.biject_to), which is needed here: write the density in "
            "coordinates of its own."
        ) from error
    base: Any = transform
    while isinstance(base, IndependentTransform):
        base = base.base_transform
    if isinstance(base, IdentityTransform):
        return None
    return Coordinates(
        transform,
        transform.inv,
        lambda z, x: jnp.sum(transform.log_abs_det_jacobian(z, x)),
        transform.inverse_shape,
    )


@coordinates_of.register
def _(distribution: dist.Distribution) -> Coordinates | None:
    return coordinates_of_support(distribution.support)
