# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How a site is drawn given everything else, for Gibbs sampling."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from numpyro.ops.provenance import eval_provenance

from numpyro_scores.distributions._wrapped import base_of, copies_of, power_of, sum_to
from numpyro_scores.distributions.boltzmann.base import BlockDistribution
from numpyro_scores.distributions.boltzmann.states import finite_states, from_logits, tilted
from numpyro_scores.distributions.boltzmann.sweeps import gibbs_sweeps
from numpyro_scores.infer.discrete.elementwise import (
    Layout,
    Term,
    find_terms,
)
from numpyro_scores.infer.discrete.model_trace import (
    Trace,
    Values,
    blocks_of,
    support_sources,
    unsummed_log_prob,
)


class Whole:
    """The split of a site whose distribution has no blocks: one, of all its elements."""

    split = staticmethod(lambda x: (x,))
    join = staticmethod(lambda blocks: blocks[0])


@dataclass(frozen=True)
class SiteUpdate:
    """
    How a site is drawn given everything else: as a tuple of blocks, one by one, each of elements
    that are independent. It holds names and shapes, no arrays.

    - **has_blocks** - whether its distribution has blocks and knows their conditionals. Without,
      the site is one block, and its own log density one of the terms.
    - **discrete** - for each block, whether it is discrete.
    - **states** - of the elements of these.
    - **terms** - the log densities that depend on the site, besides what its distribution knows.
    - **joint** - the sites whose log density depends on it, but is not a sum over its elements.
    """

    name: str
    has_blocks: bool
    discrete: tuple[bool, ...]
    states: tuple[int, ...]
    terms: tuple[Term, ...]
    joint: tuple[str, ...]

    @classmethod
    def of(cls, name: str, fn: Any, d: Any, values: Values, trace_at: Trace) -> "SiteUpdate":
        """
        :param d: the distribution beneath `fn` if it has blocks, or None.
        """
        x = values[name]
        dependents = _dependents(name, values, trace_at)
        if d is None:
            states = _states_of_elements(name, fn, values, trace_at)
            layout = Layout(
                x.shape,
                Whole.split,
                Whole.join,
                lambda key: random.choice(key, jnp.array(states), x.shape),
            )
            terms = _terms(name, dependents, values, trace_at, layout)
            return cls(name, False, (True,), states, *terms)
        conditionals = jax.eval_shape(
            lambda x: [d._conditional(k, tuple(d.split(x))) for k in range(d.num_blocks)], x
        )
        copies = copies_of(fn, x)
        layout = Layout(
            x.shape,
            lambda x: tuple(d.split(x)),
            d.join,
            lambda key: d.random_point(key, copies),
        )
        others = [site for site in dependents if site != name]
        terms, joint = _terms(name, others, values, trace_at, layout)
        discrete = tuple(c.is_discrete for c in conditionals)
        for k, is_discrete in enumerate(discrete):
            if not is_discrete and any(term.block in (None, k) for term in terms):
                raise ValueError(
                    f"BlockGibbs draws the continuous elements of site {name!r} from their "
                    f"distribution, but {[t.name for t in terms]} depend on them. Draw a "
                    "continuous site with a Langevin kernel, and the discrete one beside it: "
                    "v = sample('v', rbm), h = sample('h', rbm.conditional(visible=v).to_event(1))."
                )
        states = next(_states(c) for c in conditionals if c.is_discrete)
        return cls(name, True, discrete, states, terms, joint)

    def column(self, ndim: int) -> Array:
        """The states, on the first axis of an array of one more axis than `ndim`."""
        return jnp.reshape(jnp.array(self.states), (-1, *[1] * ndim))

    def is_at(self, value: Array) -> Array:
        """Whether each element is in each state, `(num_states, *shape)`."""
        return value[None] == self.column(value.ndim)

    def pick(self, chosen: Array, dtype: Any) -> Array:
        """The state of each element at which `chosen`, of shape `(num_states, *shape)`, is true."""
        return jnp.sum(jnp.where(chosen, self.column(chosen.ndim - 1), 0), axis=0).astype(dtype)

    def log_weights(self, values: Values, trace_at: Trace) -> tuple[Any, ...]:
        """
        For each block what each state of each element adds to the log density, as far as the
        site's own distribution does not know: the states on the first axis. None where nothing.
        """
        if self.has_blocks and not self.terms:
            return (None,) * len(self.discrete)
        value = values[self.name]
        d = blocks_of(trace_at(values)[self.name]["fn"]) if self.has_blocks else Whole
        whole = [term for term in self.terms if term.block is None]

        def of_state(state: Array) -> tuple[Array, ...]:
            sites = trace_at(values | {self.name: jnp.full(value.shape, state)})
            blocks = [jnp.zeros(b.shape) for b in d.split(value)]
            if whole:
                total = sum(sum_to(_log_prob(sites, term), value.shape) for term in whole)
                blocks = list(d.split(total))
            for term in self.terms:
                if term.block is not None:
                    blocks[term.block] += sum_to(_log_prob(sites, term), blocks[term.block].shape)
            return tuple(blocks)

        return jax.vmap(of_state)(jnp.array(self.states))

    def conditional(self, values: Values, trace_at: Trace) -> Callable[..., dist.Distribution]:
        """
        The distribution of block `k` given all others, as a function of `k` and the blocks; without
        blocks that of the number of each element's state.
        """
        log_weights = self.log_weights(values, trace_at)
        if not self.has_blocks:
            return lambda k, blocks: from_logits(jnp.moveaxis(log_weights[0], 0, -1))
        site = trace_at(values)[self.name]
        d = blocks_of(site["fn"])
        power = power_of(site)
        is_whole = all(self.discrete) and isinstance(d, BlockDistribution)
        # Of hidden units that are summed out, all or nothing of the density can be taken.
        if not is_whole and (
            site["scale"] is not None or not (power is None or all(self.discrete))
        ):
            raise ValueError(
                f"The density of site {self.name!r} is scaled (handlers.scale, or a tempered "
                "replica) or masked, which BlockGibbs can do for Ising, Potts, PairwiseMRF and the "
                "joint() of a BernoulliRBM."
            )

        def conditional(k: int, blocks: tuple[Array, ...]) -> dist.Distribution:
            of_prior = d._conditional(k, blocks)
            if not self.discrete[k]:
                return of_prior
            return tilted(of_prior, log_weights[k], power)

        return conditional

    def own_log_prob(self, values: Values, trace_at: Trace) -> Array | None:
        """The log density of the site alone, if it must be finite for the first draw; or None."""
        if not self.has_blocks:
            return None
        return jnp.sum(unsummed_log_prob(trace_at(values)[self.name], 0))

    def draw(self, key: Array, values: Values, trace_at: Trace, num_sweeps: int) -> Values:
        """New values of the site, after some sweeps over its blocks."""
        value, conditional = values[self.name], self.conditional(values, trace_at)
        if not self.has_blocks:
            # All but the last of several draws from the same distribution would be forgotten.
            number = conditional(0, ()).sample(key)
            return {self.name: jnp.array(self.states, value.dtype)[number]}
        d = blocks_of(trace_at(values)[self.name]["fn"])
        # Conversions of small integers in each sweep would take longer than the sums.
        blocks = gibbs_sweeps(conditional, key, tuple(d.split(value.astype(float))), num_sweeps)
        return {self.name: d.join(blocks).astype(value.dtype)}


@dataclass(frozen=True)
class GivenConditional:
    """Sites with a full conditional of the user's."""

    names: tuple[str, ...]
    conditional: Callable

    def draw(self, key: Array, values: Values, trace_at: Trace, num_sweeps: int) -> Values:
        """New values of these sites."""
        latent = trace_at.conditioned | values
        given = self.conditional(latent, *trace_at.args, **trace_at.kwargs)
        if isinstance(given, dist.Distribution) and len(self.names) == 1:
            given = {self.names[0]: given}
        if not isinstance(given, dict) or set(given) != set(self.names):
            raise ValueError(
                f"The conditional of the sites {list(self.names)} must return a NumPyro "
                "distribution of each, by name, got "
                f"{sorted(given) if isinstance(given, dict) else type(given).__name__}."
            )
        new = {}
        for name, key_site in zip(self.names, random.split(key, len(self.names)), strict=True):
            if given[name].shape() != values[name].shape:
                raise ValueError(
                    f"The conditional of site {name!r} must have the shape of the site, "
                    f"{values[name].shape}, got {given[name].shape()}."
                )
            new[name] = jnp.asarray(given[name].sample(key_site), values[name].dtype)
        return new


def _states_of_elements(name: str, fn: Any, values: Values, trace_at: Trace) -> tuple[int, ...]:
    states = finite_states(fn.support)
    sources = support_sources(name, values, trace_at)
    if states and sources:
        raise ValueError(
            f"Elements are drawn whose states stay the same, but those of site {name!r} depend "
            f"on {sources}. Give it all states that it may have, and those that are not "
            "possible the probability zero, by a Categorical."
        )
    if not states:
        raise ValueError(
            "Elements are drawn that all have the same finitely many states, but site "
            f"{name!r} is of {type(base_of(fn)).__name__}. Give BlockGibbs its full "
            f"conditional, blocks=[([{name!r}], conditional), ...]."
        )
    return states


def _states(d: dist.Distribution) -> tuple[int, ...]:
    return tuple(int(state) for state in np.ravel(d.enumerate_support(expand=False)))


def _log_prob(sites: Any, term: Term) -> Array:
    return unsummed_log_prob(sites[term.name], term.num_axes)


def _dependents(name: str, values: Values, trace_at: Trace) -> list[str]:
    """The sites whose log density depends on the value of a site."""

    def log_probs(**value):
        sites = trace_at(values | value)
        return {n: unsummed_log_prob(s, 0) for n, s in sites.items() if s["type"] == "sample"}

    depends = eval_provenance(log_probs, **{name: values[name]})
    return [site for site, latent in depends.items() if latent]


def _terms(
    name: str, dependents: list[str], values: Values, trace_at: Trace, layout: Layout
) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """The log densities that are sums over the elements, and the names of those that are not."""
    if not dependents:
        return (), ()
    found = find_terms(dependents, lambda value: trace_at(values | {name: value}), layout)
    terms = tuple(term for term in found.values() if term is not None)
    return terms, tuple(site for site, term in found.items() if term is None)


def check_elementwise(kernel: str, update: Any, shape: tuple[int, ...], way_out: str) -> None:
    """Raise if the elements of a site are joined by another log density than its own."""
    if update.joint:
        raise ValueError(
            f"{kernel} cannot draw the elements of site {update.name!r}, of shape {shape}, at "
            f"once: the log density of {list(update.joint)} is not a sum over single elements. "
            "Missing observations should be masked, not indexed; a constant that is large beside "
            "what an element changes should be left out, for it hides in rounding what depends on "
            f"what. For a likelihood that joins the elements {way_out}."
        )
