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
from numpyro.util import is_prng_key

from numpyro_scores._validation import is_concrete
from numpyro_scores.distributions import Ising, PairwiseMRF, Potts
from numpyro_scores.distributions._wrapped import base_of
from numpyro_scores.distributions.boltzmann.states import choice, finite_states
from numpyro_scores.infer.discrete.base import DiscreteKernel, DiscreteState, Trace, Values
from numpyro_scores.infer.discrete.clusters import Ends, connected_components
from numpyro_scores.infer.discrete.updates import BlockUpdate, check_elementwise
from numpyro_scores.infer.trees import take


class SwendsenWang(DiscreteKernel):
    r"""
    The cluster algorithm of Swendsen & Wang (1987, "Nonuniversal critical dynamics in Monte Carlo
    simulations") for sites of `Ising`, `Potts` and `PairwiseMRF` whose couplings are not negative.

    A step opens each edge between two sites of one state with probability :math:`1 - e^{-J}`, where
    :math:`J` is what agreement adds to the log density (the coupling of `Potts` and `PairwiseMRF`,
    twice that of `Ising`). Then each cluster of sites that open edges join takes one state with
    probability

    .. math:: \propto \exp \sum_{i \in \text{cluster}} \left( h_{i, c} + \ell_i(c) \right),

    from the fields :math:`h` and the log likelihood :math:`\ell_i(c)` of state `c` at site `i`. It
    is a Gibbs sampler of states and edges (Edwards & Sokal 1988), so exact. Near the critical point
    of a large lattice, where `BlockGibbs` changes clusters from their edges inwards, it takes a few
    steps in place of thousands. Strong fields or sharp data, which differ within the clusters, take
    that away: then `BlockGibbs` is better.

    The likelihood must be a sum over the sites of the lattice, as for `BlockGibbs`.

    :param model: a NumPyro model whose discrete latent sites are of these distributions, alone,
        expanded or in a plate. Other sites need a kernel of their own: see `BlockGibbs`.
    :param num_steps: steps between two draws.
    :raises ValueError: at `init`, if a site or a likelihood does not fit, or a coupling is
        negative. One that varies with other sites must not become negative later on.
    """

    def __init__(self, model: Callable, *, num_steps: int = 1):
        super().__init__(model, num_steps)

    def _plan(self, fns, values, trace_at) -> tuple["ClusterSite", ...]:
        return tuple(ClusterSite.of(name, fn, values, trace_at) for name, fn in fns.items())

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        state = super().init(rng_key, num_warmup, init_params, model_args, model_kwargs)
        z = state.z if is_prng_key(rng_key) else take(state.z, 0)
        for name, couplings in self._couplings(z, model_args, model_kwargs).items():
            _check_ferromagnetic(name, couplings)
        return state

    def _couplings(self, z: Values, model_args: tuple, model_kwargs: dict) -> dict[str, Array]:
        """What agreement adds to the log density, of each edge of each site."""

        def run(z: Values) -> dict[str, Array]:
            sites = self._trace_at(model_args, model_kwargs)(z)
            return {s.name: _edges(base_of(sites[s.name]["fn"]))[1] for s in self._found.plan}

        return jax.jit(run)(z)

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
    - **ends** - of an array of the sites, the values at the two ends of each edge.
    - **couplings** - what agreement adds to the log density, of each edge.
    - **weights** - log weight of each state at each site, `(*batch_shape, *event_shape, q)`.
    """

    ends: Ends
    couplings: Array
    weights: Array


@dataclass(frozen=True)
class ClusterSite:
    """A site of the model that is updated by clusters, with its states and its likelihood."""

    event_shape: tuple[int, ...]
    states: tuple[int, ...]
    update: BlockUpdate

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
        update = BlockUpdate.of(name, fn, values, trace_at)
        way_out = "use DiscreteLangevin or GibbsWithGradients"
        check_elementwise("SwendsenWang", update, values[name].shape, way_out)
        return cls(d.event_shape, finite_states(d.support), update)

    @property
    def name(self) -> str:
        return self.update.name

    def random_field(self, values: Values, trace_at: Trace) -> RandomField:
        site = trace_at(values)[self.name]
        d = base_of(site["fn"])
        scale = 1.0 if site["scale"] is None else site["scale"]
        ends, couplings = _edges(d)
        weights = scale * (d.fields if isinstance(d, PairwiseMRF) else d.site_weights())
        if self.update.terms:
            of_terms = d.join(self.update.log_weights(values, trace_at))
            weights += jnp.moveaxis(of_terms, 0, -1)
        shape = (*values[self.name].shape, len(self.states))
        return RandomField(ends, scale * couplings, jnp.broadcast_to(weights, shape))

    def draw(self, key: Array, value: Array, field: RandomField) -> Array:
        """New states, given the present ones."""
        points = value.reshape(-1, *self.event_shape)
        weights = field.weights.reshape(*points.shape, len(self.states))

        def draw_point(key: Array, x: Array, weights: Array) -> Array:
            key_edges, key_states = random.split(key)
            is_open = random.bernoulli(key_edges, open_probs(x, field))
            labels = connected_components(field.ends, is_open, self.event_shape)
            number = jnp.asarray(choice(cluster_logits(labels, weights)).sample(key_states))
            return jnp.array(self.states, x.dtype)[number[labels]]

        keys = random.split(key, len(points))
        return jax.vmap(draw_point)(keys, points, weights).reshape(value.shape)


def open_probs(x: Array, field: RandomField) -> Array:
    """The probability that each edge is open."""
    first, second = field.ends(x)
    return jnp.where(first == second, -jnp.expm1(-field.couplings), 0.0)


def cluster_logits(labels: Array, weights: Array) -> Array:
    """In the row of its label the log weight of each state of a cluster, `(num_sites, q)`."""
    weights = weights.reshape(labels.size, -1)
    return jax.ops.segment_sum(weights, labels.reshape(-1), labels.size)


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


def _check_ferromagnetic(name: str, couplings: Array) -> None:
    if is_concrete(couplings) and np.any(np.asarray(couplings) < 0):
        raise ValueError(
            "SwendsenWang needs couplings that are not negative, so that neighbours agree, got "
            f"{float(jnp.min(couplings)):.3g} at site {name!r}. Use BlockGibbs."
        )
