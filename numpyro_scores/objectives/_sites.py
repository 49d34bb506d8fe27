# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Each site of a discrete point given all others, from a distribution or an energy."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from numpyro_scores._callables import Energy
from numpyro_scores._validation import is_concrete
from numpyro_scores.objectives._energy import check_unnormalised, energy_of
from numpyro_scores.objectives._points import (
    as_points,
    check_event_shape,
    check_in_support,
    check_instance,
    is_discrete,
    is_distribution,
)

# States of the distributions of this package are int8; spins are -1 and 1.
CANDIDATES = range(-1, 128)


def site_log_probs(module: Any, x: Any, states: Sequence[float] | None) -> Array:
    r"""
    :math:`\log p(x_i \mid x_{\setminus i})` of each site of each point, the shape of `x`; minus
    infinity in a point of an energy with a site that has none of its states.
    """
    x = checked_points(module, x)
    if hasattr(module, "site_log_probs"):
        return module.site_log_probs(x)
    energy = energy_of(module, x[0])
    states = states_of(module, x, states)

    def of_point(x: Array) -> Array:
        others = _energies_of_changed(energy, x, states)
        log_sums = lax.map(lambda i: jax.nn.logsumexp(-others(i)), jnp.arange(x.size))
        return jnp.where(_all_among(x, states), -energy(x) - log_sums.reshape(x.shape), -jnp.inf)

    return jax.vmap(of_point)(x)


def shares_of_neighbours(module: Any, x: Any, states: Sequence[float] | None) -> Array:
    r"""
    :math:`p(x^{i \to k}) / (p(x) + p(x^{i \to k}))`, where site `i` has the state `k` in
    :math:`x^{i \to k}` and all others stay: in (0, 1) for each `k` that is not :math:`x_i`, which
    has zero. Infinite for a point of an energy with a site that has none of its states.

    :return: shape `(n, num_sites, num_states)`, or `(n, num_sites, 1)` with two states.
    :raises ValueError: if the states of a site are not known.
    """
    x = checked_points(module, x)
    if all(hasattr(module, name) for name in ("conditional", "num_blocks", "split", "join")):
        return _shares_of_conditionals(module, x, states_of(module, x, None))
    if hasattr(module, "site_log_probs") and len(states_of(module, x, states)) == 2:
        return -jnp.expm1(module.site_log_probs(x).reshape(len(x), -1, 1))
    energy = energy_of(module, x[0])
    states = states_of(module, x, states)

    def of_point(x: Array) -> Array:
        others = _energies_of_changed(energy, x, states)
        here = energy(x)
        shares = lax.map(lambda i: jax.nn.sigmoid(here - others(i)), jnp.arange(x.size))
        shares = jnp.where(x.reshape(-1, 1) == jnp.asarray(states, x.dtype)[None], 0, shares)
        return jnp.where(_all_among(x, states), shares, jnp.inf)

    return jax.vmap(of_point)(x)


def checked_points(module: Any, x: Any) -> Array:
    """The points of a discrete module, as an array."""
    check_instance(module)
    check_unnormalised(module)
    x = as_points(x)
    if is_distribution(module):
        if not is_discrete(module):
            raise ValueError(
                f"{type(module).__name__} is a distribution of continuous points: its sites have "
                "no states. ImplicitScoreMatching and its siblings are for those."
            )
        check_event_shape(module, x[0])
        check_in_support(module, x)
    return x


def states_of(module: Any, x: Array, states: Sequence[float] | None) -> tuple[float, ...]:
    """
    The states of a site, given or those of a distribution's support.

    :raises ValueError: if nothing tells them, or points that can be looked at have others.
    """
    if states is None and is_distribution(module):
        sites = np.ones(x.shape[1:])
        inside = [module.support(state * sites) for state in CANDIDATES]
        if all(map(is_concrete, inside)):
            states = [s for s, ok in zip(CANDIDATES, inside, strict=True) if np.all(ok)]
    if states is None or len(states) < 2:
        raise ValueError(
            f"Those of {type(module).__name__} can't be told: the states of a site must be given, "
            "such as PseudoLikelihood(states=(0, 1)) or (-1, 1)."
        )
    states = tuple(states)
    if is_concrete(x):
        found = np.unique(np.asarray(x))
        strangers = found[~np.isin(found, states)]
        if len(strangers):
            raise ValueError(
                f"x must have the states {states} at its sites, got {strangers[:5]}, too: code "
                "the data with these states, or give those of the data."
            )
    return states


def _all_among(x: Array, states: tuple[float, ...]) -> Array:
    return jnp.all(jnp.isin(x, jnp.asarray(states, x.dtype)))


def _energies_of_changed(
    energy: Energy, x: Array, states: tuple[float, ...]
) -> Callable[[Array], Array]:
    """Of a site, the energies of a point with each of the states there, shape `(num_states,)`."""
    flat, values = x.reshape(-1), jnp.asarray(states, x.dtype)
    return lambda i: jax.vmap(lambda s: energy(flat.at[i].set(s).reshape(x.shape)))(values)


def _shares_of_conditionals(module: Any, x: Array, states: tuple[float, ...]) -> Array:
    """Block by block: the sites of one do not depend on each other."""
    blocks = tuple(module.split(x))
    by_state: list[list[Array]] = [[] for _ in states]
    for k, block in enumerate(blocks):
        given = module.conditional(k, blocks)
        here = given.log_prob(block.astype(int))
        for shares, state in zip(by_state, states, strict=True):
            there = given.log_prob(jnp.full(block.shape, int(state)))
            shares.append(jnp.where(block == state, 0, jax.nn.sigmoid(there - here)))
    joined = [module.join(tuple(shares)).reshape(len(x), -1) for shares in by_state]
    return jnp.stack(joined, -1)
