# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How much wider a twist must be than the Jacobian of a denoiser says: measured on the prior."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.trees import map_rows

NUM_PILOTS = 100
SHARES = 2.0 ** np.arange(-16, 2)


def added_variances(
    key: Array, x: Array, twist: DiffusionTwist, levels: Array, batch_size: int
) -> Array:
    r"""
    What is to be added to the variances of the Normal numbers at each noise level, shape
    `(num_levels, dim_y)`.

    A covariance :math:`\tau^2 \nabla m` has :math:`\tau^2` times the error of a learned Jacobian,
    at the largest levels more than all that there is to know, and a twist that is too narrow leaves
    a few particles with all the weight. So values :math:`v` are drawn from the prior, data from
    these and noise to each level, :math:`x = v + \tau z`; and what is added is the share of the
    variance of the means :math:`f(v)`, out of 0 and powers of two, that gives these data the
    largest likelihood. That of the right covariance is 0, but for chance.

    :param x: draws of the largest level, shape `(num, d)`.
    :param levels: from the largest to that of the prior, at which nothing is added.
    """
    keys = random.split(key, (len(x), 2))

    def fall(x, ends):
        return map_rows(lambda x: twist.flow(x, *ends), x, batch_size), None

    v, _ = lax.scan(fall, x, (levels[:-1], levels[1:]))
    loc = jax.vmap(lambda v: twist.data(v)[0].loc)(v)
    variance = jnp.var(loc, axis=0)
    shares = jnp.asarray([0.0, *SHARES], x.dtype)

    def log_densities(keys, v, sigma):
        key_noise, key_data = keys  # the same at each level, which chance then makes no different
        tau = jnp.sqrt(jnp.maximum(twist.variance(v, sigma), 0))
        mean, product = jax.linearize(
            partial(twist.mean, sigma=sigma), v + tau * random.normal(key_noise, v.shape, v.dtype)
        )
        product = twist.products(mean, product)
        spread = twist.spread(mean, product, sigma, twist.directions(mean, product))
        given, seen = twist.data(v)[0], twist.data(mean)[0]
        y = given.loc + given.scale * random.normal(key_data, given.loc.shape, v.dtype)

        def at(share):
            return twist.log_density_of_normal(seen._replace(value=y), spread, share * variance)

        values = lax.map(at, shares)
        return jnp.where(jnp.isnan(values), -jnp.inf, values)

    def share_at(sigma):
        found = map_rows(lambda row: log_densities(*row, sigma), (keys, v), batch_size)
        return shares[jnp.argmax(jnp.mean(found, axis=0))]

    share = lax.map(share_at, levels)
    return share.at[-1].set(0)[:, None] * variance
