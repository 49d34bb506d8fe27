# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Swendsen-Wang: whole clusters of a lattice or random field change their state at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores.distributions import Ising, PairwiseMRF, Potts
from numpyro_scores.distributions._wrapped import base_of, copies_of, power_of
from numpyro_scores.distributions.boltzmann.states import from_logits
from numpyro_scores.infer.discrete.base import DiscreteKernel, DiscreteState
from numpyro_scores.infer.discrete.clusters import Ends, connected_components
from numpyro_scores.infer.discrete.model_trace import Trace, Values
from numpyro_scores.infer.discrete.updates import SiteUpdate, check_elementwise


class SwendsenWang(DiscreteKernel):
    r"""
    The cluster algorithm of Swendsen & Wang (1987, "Nonuniversal critical dynamics in Monte Carlo
    simulations") for sites of `Ising`, `Potts` and `PairwiseMRF`, with couplings of either sign.

    A step opens edges that hold two sites in the states that they favour, each with probability
    :math:`1 - e^{-|J|}`, where :math:`J` is what agreement adds to the log density (the coupling of
    `Potts` and `PairwiseMRF`, twice that of `Ising`): where it is positive they agree, where it is
    negative they differ. Then each cluster of sites that open edges join changes as a whole. With
    couplings that are not negative it takes one state with probability

    .. math:: \propto \exp \sum_{i \in \text{cluster}} \left( h_{i, c} + \ell_i(c) \right),

    from the fields :math:`h` and the log likelihood :math:`\ell_i(c)` of state `c` at site `i`.
    Otherwise the states are paired at random, edges are opened between sites whose states make a
    pair, and each cluster keeps its states or exchanges those of a pair, with the same weights
    (Wang, Swendsen & Kotecky 1989, "Antiferromagnetic Potts models"). Both are Gibbs samplers of
    states and edges (Edwards & Sokal 1988), so exact, for frustrated couplings too.

    Near the critical point of a large ferromagnetic lattice, where `BlockGibbs` changes clusters
    from their edges inwards, it takes a few steps in place of thousands. Strong fields or sharp
    data, which differ within the clusters, take that away, as frustration does: then `BlockGibbs`
    is better.

    The likelihood must be a sum over the sites of the lattice, as for `BlockGibbs`.

    :param model: a NumPyro model whose discrete latent sites are of these distributions, alone,
        expanded or in a plate. Other sites need a kernel of their own: see `BlockGibbs`.
    :param num_steps: steps between two draws.
    :raises ValueError: at `init`, if a site or a likelihood does not fit.
    """

    def __init__(self, model: Callable, *, num_steps: int = 1):
        super().__init__(model, num_steps)

    def _plan(self, fns, values, trace_at) -> tuple["ClusterSite", ...]:
        return tuple(ClusterSite.of(name, fn, values, trace_at) for name, fn in fns.items())

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        energy = self.get_potential_fn(model_args, model_kwargs)(z)
        return DiscreteState(jnp.array(0), z, rng_key), (energy,)

    def _sample_chain(self, state, model_args, model_kwargs):
        trace_at = self._trace_at(model_args, model_kwargs)
        sites = self._found.plan
        once = sites[0].random_field(state.z, trace_at) if len(sites) == 1 else None

        def step(z: Values, key: Array) -> tuple[Values, None]:
            for site, key_site in zip(sites, random.split(key, len(sites)), strict=True):
                field = site.random_field(z, trace_at) if once is None else once
                z = z | {site.name: site.draw(key_site, z[site.name], field)}
            return z, None

        rng_key, key_steps = random.split(state.rng_key)
        z, _ = lax.scan(step, state.z, random.split(key_steps, self._num_steps))
        return DiscreteState(state.i + 1, z, rng_key)


class RandomField(NamedTuple):
    """
    Copies of a lattice or graph, on the first axis.

    - **couplings** - what agreement adds to the log density, of each edge.
    - **weights** - log weight of each state at each site, `(num_copies, *event_shape, q)`.
    - **ends** - of an array of the sites, the values at the two ends of each edge.
    """

    couplings: Array
    weights: Array
    ends: Ends


@dataclass(frozen=True)
class ClusterSite:
    """A site of the model that is updated by clusters, with its states and its likelihood."""

    event_shape: tuple[int, ...]
    update: SiteUpdate

    @classmethod
    def of(cls, name: str, fn: Any, values: Values, trace_at: Trace) -> "ClusterSite":
        d = base_of(fn)
        if not isinstance(d, Ising | Potts | PairwiseMRF):
            raise ValueError(
                "SwendsenWang updates sites of Ising, Potts and PairwiseMRF, but site "
                f"{name!r} is of {type(d).__name__}. Give it a kernel of its own, "
                f"numpyro.infer.Gibbs([(SwendsenWang(model), [...]), (BlockGibbs(model), "
                f"[{name!r}])])."
            )
        if isinstance(d, PairwiseMRF) and d.couplings.ndim != 1:
            raise ValueError(
                "SwendsenWang needs one coupling for each edge, of shape "
                f"{(len(d.edges),)}, but those of site {name!r} are tables, of shape "
                f"{d.couplings.shape}. Draw it with BlockGibbs."
            )
        update = SiteUpdate.of(name, fn, d, values, trace_at)
        way_out = "use DiscreteLangevin or GibbsWithGradients"
        check_elementwise("SwendsenWang", update, values[name].shape, way_out)
        return cls(d.event_shape, update)

    @property
    def name(self) -> str:
        return self.update.name

    @property
    def states(self) -> tuple[int, ...]:
        return self.update.states

    def random_field(self, values: Values, trace_at: Trace) -> RandomField:
        site = trace_at(values)[self.name]
        d = base_of(site["fn"])
        copies = copies_of(site["fn"], values[self.name])
        ends, couplings = _edges(d)
        weights = d.fields if isinstance(d, PairwiseMRF) else d.site_weights()
        couplings = jnp.broadcast_to(couplings, (*copies, *couplings.shape))
        weights = jnp.broadcast_to(weights, (*copies, *weights.shape))
        power = power_of(site)
        if power is not None:
            couplings = _to_power(couplings, power)
            weights = _to_power(weights, power)
        if self.update.terms:
            of_terms = d.join(self.update.log_weights(values, trace_at))
            weights += jnp.moveaxis(of_terms, 0, -1)
        n = len(copies)
        return RandomField(
            couplings.reshape(-1, *couplings.shape[n:]),
            weights.reshape(-1, *weights.shape[n:]),
            ends,
        )

    def draw(self, key: Array, value: Array, field: RandomField) -> Array:
        """New states, given the present ones."""
        low, step = self.states[0], self.states[1] - self.states[0]
        numbers = (value.astype(int).reshape(-1, *self.event_shape) - low) // step

        def draw_copy(key: Array, number: Array, couplings: Array, weights: Array) -> Array:
            key_pairs, key_edges, key_states = random.split(key, 3)
            partners = random_partners(key_pairs, len(self.states))
            first, second = field.ends(number)
            is_open = random.bernoulli(key_edges, open_probs(first, second, couplings, partners))
            labels = connected_components(field.ends, is_open, self.event_shape)
            choices = choices_of(number, couplings, partners)
            logits = cluster_logits(labels, choices, weights, couplings)
            chosen = jnp.asarray(from_logits(logits).sample(key_states))[labels]
            return jnp.take_along_axis(choices, chosen[..., None], -1)[..., 0]

        keys = random.split(key, len(numbers))
        new = jax.vmap(draw_copy)(keys, numbers, field.couplings, field.weights)
        return (low + step * new).astype(value.dtype).reshape(value.shape)


def random_partners(key: Array, num_states: int) -> Array:
    """The partner of each state in pairs at random; of an odd number, one is its own."""
    if num_states == 2:
        return jnp.array([1, 0])
    order = random.permutation(key, num_states)
    places = np.arange(num_states) ^ 1
    return (
        jnp.zeros(num_states, int).at[order].set(order[np.where(places < num_states, places, -1)])
    )


def open_probs(first: Array, second: Array, couplings: Array, partners: Array) -> Array:
    """The probability that each edge is open, from the numbers of the states at its ends."""
    differ = (first != second) & (second == partners[first])
    is_satisfied = jnp.where(couplings > 0, first == second, differ)
    return jnp.where(is_satisfied, -jnp.expm1(-jnp.abs(couplings)), 0.0)


def choices_of(number: Array, couplings: Array, partners: Array) -> Array:
    """
    What each site can be, as numbers of states, `(*event_shape, q)`; each cluster makes one choice.
    """
    q = len(partners)
    exchanged = jnp.stack([number, *[partners[number]] * (q - 1)], -1)
    if q == 2:
        return exchanged
    any_state = jnp.broadcast_to(jnp.arange(q), exchanged.shape)
    return jnp.where(_by_pairs(couplings), exchanged, any_state)


def cluster_logits(labels: Array, choices: Array, weights: Array, couplings: Array) -> Array:
    """In the row of its label the log weight of each choice of a cluster, `(num_sites, q)`."""
    q = choices.shape[-1]
    of_sites = jnp.take_along_axis(weights, choices, -1).reshape(-1, q)
    logits = jax.ops.segment_sum(of_sites, labels.reshape(-1), labels.size)
    # Of pairs there are two choices.
    is_choice = ~_by_pairs(couplings) | (jnp.arange(q) < 2)
    return logits if q == 2 else jnp.where(is_choice[None], logits, -jnp.inf)


def _by_pairs(couplings: Array) -> Array:
    return jnp.any(couplings < 0)


def _to_power(log_weights: Array, power: Array) -> Array:
    power = jnp.reshape(power, (*power.shape, *[1] * (log_weights.ndim - power.ndim)))
    # A power of zero leaves a density out, where that is zero too.
    return power * jnp.where(power == 0, 0.0, log_weights)


def _edges(d: Ising | Potts | PairwiseMRF) -> tuple[Ends, Array]:
    """The ends of the edges, and what agreement adds to the log density."""
    if isinstance(d, PairwiseMRF):
        first, second = d.edges.T
        return lambda x: (x[first], x[second]), d.couplings
    # To the site below and to the site to the right of each site, where there is one.
    exists = np.ones((2, *d.event_shape), bool)
    for axis, size in enumerate(d.event_shape):
        if size == 1 or not d.periodic:
            np.moveaxis(exists[axis], axis, 0)[-1] = False
    pairs = d.pair_weights()
    couplings = jnp.where(exists, pairs[0, 0] - pairs[0, 1], 0.0)

    def ends(x: Array) -> tuple[Array, Array]:
        return jnp.stack([x, x]), jnp.stack([jnp.roll(x, -1, 0), jnp.roll(x, -1, 1)])

    return ends, couplings
