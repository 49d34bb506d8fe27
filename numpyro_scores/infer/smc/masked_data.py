# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Normal data beneath a mask as Normal data without one, of which a twist knows the covariance."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.distribution import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)
from numpyro.primitives import Messenger

from numpyro_scores.handlers import is_likelihood

OF_DENSITY_ONE = 1 / np.sqrt(2 * np.pi)  # the scale of a Normal number that is its own mean


class without_masks(Messenger):
    """
    A model whose masked Normal data are Normal: a number that is left out is its own mean, whatever
    the latent sites are, with a density of one.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        if not is_likelihood(msg):
            return
        base, mask = _unwrapped(msg["fn"])
        if mask is None or type(base) is not dist.Normal:
            return
        shape = jnp.broadcast_shapes(jnp.shape(msg["value"]), msg["fn"].shape())
        # What is missing may be NaN.
        loc, scale, value = (
            jnp.broadcast_to(jnp.where(mask, x, out), shape)
            for x, out in (
                (base.loc, 0.0),
                (base.scale, OF_DENSITY_ONE),
                (msg["value"], 0.0),
            )
        )
        msg["fn"] = dist.Normal(loc, scale).to_event(msg["fn"].event_dim)
        msg["value"] = value


def _unwrapped(fn: Any) -> tuple[Any, Any]:
    """What is beneath `to_event`, `expand`, `plate` and masks, and the mask of each number."""
    mask = None
    while isinstance(fn, ExpandedDistribution | Independent | MaskedDistribution):
        if isinstance(fn, MaskedDistribution):
            of_batch = jnp.asarray(fn._mask)
            found = of_batch.reshape(*of_batch.shape, *[1] * fn.event_dim)
            mask = found if mask is None else mask & found
        fn = fn.base_dist
    return fn, mask
