# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Even-odd swaps of neighbours on a ladder, and what is counted of them."""

from typing import Any

import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree

from numpyro_scores.infer.langevin.score_sites import Potential, score_sites, target_of
from numpyro_scores.infer.langevin.targets import Target

# Directions of the walkers: on the way to the last rung, or back from it to the first.
UP, DOWN = 1, -1


def even_odd_partners(i: Array, num_rungs: int) -> Array:
    """
    With whom each rung swaps in draw `i`, shape `(num_rungs,)`: 0 with 1, 2 with 3, ... in even
    draws; 1 with 2, ... in odd ones; itself where there is nobody.
    """
    rung = jnp.arange(num_rungs)
    partner = rung + jnp.where((rung + i) % 2 == 0, 1, -1)
    return jnp.where((partner < 0) | (partner == num_rungs), rung, partner)


def share_of_log_ratio(
    z: Any, z_partner: Any, potential: Potential, potential_of_partner: Potential, rule: Any
) -> tuple[Array, Array]:
    r"""
    The share that a rung has in the logarithm of the ratio by which it and its partner swap their
    positions, :math:`D(z_i) - D(z_j)` with the difference :math:`D = U_i - U_j` of their potential
    energies, and whether it is known; minus infinity if not. It is :math:`U_i(z_i) - U_i(z_j)`. Of
    sites that are known by their score, `D` is integrated along the segment between the two, and
    its error measured there, since what the rungs have in common cancels: each has a half of it.

    :param rule: of that integral, or None for the potential energies as they are.
    """
    x, unravel = ravel_pytree(z)
    y = ravel_pytree(z_partner)[0]

    def here(x):
        return potential(unravel(x))

    if rule is None or not score_sites(here, x):
        return here(x) - here(y), jnp.array(True)

    def there(x):
        return potential_of_partner(unravel(x))

    a, b = (target_of(of_vector, x, rule) for of_vector in (here, there))

    def force(x):
        assert a.force is not None and b.force is not None
        return a.force(x) - b.force(x)

    difference = Target(lambda x: a.energy(x) - b.energy(x), force, rule)
    start, end = difference.at(x), difference.at(y)
    rise, error = difference.rise(start, end)
    is_known = difference.is_known(error)
    return jnp.where(is_known, (start.energy - end.energy - rise) / 2, -jnp.inf), is_known


def swap(key: Array, log_ratio: Array, partner: Array) -> tuple[Array, Array]:
    """
    Accept or refuse the swap of each pair.

    :param log_ratio: of the pair that a rung belongs to, shape `(R,)`; that of the lower counts.
    :param partner: with whom each rung swaps, shape `(R,)`.
    :return: from which rung each rung takes its position, and the probability that its pair swaps,
        both of shape `(R,)`.
    """
    rung = jnp.arange(len(partner))
    lower = jnp.minimum(rung, partner)
    log_ratio = log_ratio[lower]  # the other may differ by rounding
    # What is not finite has left the support of one of the densities: refuse.
    accept_prob = jnp.exp(jnp.minimum(jnp.where(jnp.isfinite(log_ratio), log_ratio, -jnp.inf), 0.0))
    uniform = random.uniform(key, rung.shape, log_ratio.dtype)[lower]
    return jnp.where(uniform < accept_prob, partner, rung), accept_prob


def turn_round(directions: Array) -> tuple[Array, Array]:
    """The directions after those at both ends have turned, and the number of round trips ended."""
    num_trips = (directions[0] == DOWN).astype(int)
    top = jnp.where(directions[-1] == UP, DOWN, directions[-1])
    return directions.at[-1].set(top).at[0].set(UP), num_trips


def running_mean(mean: Array, count: Array, x: Array, counted: Array) -> tuple[Array, Array]:
    """The means of `count` numbers each, and the counts, after `x` where `counted`."""
    count = count + counted
    return mean + jnp.where(counted, x - mean, 0) / jnp.maximum(count, 1), count
