# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Points that log weights of minus infinity allow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores._validation import is_concrete
from numpyro_scores.distributions.boltzmann.sweeps import gibbs_sweeps

# The penalty of what is forbidden rises from a quarter of a nat to fifty.
MAX_SWEEPS = 200
PENALTY_STEP = 0.25


def allowed_point(d: Any, key: Array, x: Array) -> Array:
    """
    `x` where it has a positive density, and else a point after some sweeps of Gibbs sampling in
    which what is forbidden costs more and more. Where they find none, a forbidden one.

    :param d: a distribution with blocks.
    :param x: points, shape `(*batch_shape, *event_shape)`.
    """
    leaves = jax.tree.leaves(d)
    if all(map(is_concrete, leaves)) and not any(np.any(np.isinf(x)) for x in leaves):
        return x

    def is_allowed(x: Array) -> Array:
        # NaN among the parameters is for others to tell.
        return ~jnp.isneginf(d._map_points("random_point", d._log_weight, x))

    def looks_on(carry: tuple[Array, Array]) -> Array:
        i, x = carry
        return (i < MAX_SWEEPS) & ~jnp.all(is_allowed(x))

    def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, x = carry
        soft = softened(d, PENALTY_STEP * (i + 1))
        blocks = gibbs_sweeps(soft._conditional, random.fold_in(key, i), tuple(d.split(x)), 1)
        allowed = is_allowed(x).reshape(*x.shape[: x.ndim - d.event_dim], *[1] * d.event_dim)
        return i + 1, jnp.where(allowed, x, d.join(blocks))

    return lax.while_loop(looks_on, step, (jnp.array(0), x))[1]


def softened(d: Any, penalty: Array) -> Any:
    """A distribution whose parameters are finite: `penalty`, of either sign, for infinity."""
    return jax.tree.map(lambda x: jnp.where(jnp.isinf(x), jnp.sign(x) * penalty, x), d)
