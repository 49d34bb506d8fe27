# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Gibbs sampling of whole blocks of discrete variables at once."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, random

from numpyro_scores.infer.discrete.base import DiscreteKernel, DiscreteState
from numpyro_scores.infer.discrete.model_trace import Trace, Values, blocks_of
from numpyro_scores.infer.discrete.updates import (
    GivenConditional,
    SiteUpdate,
    check_elementwise,
)


class BlockGibbs(DiscreteKernel):
    r"""
    Gibbs sampling (Geman & Geman 1984) of the discrete sites of a model, in blocks of variables
    that are independent given all others and so are drawn at once, from their full conditional.
    The blocks are found from the model:

    - a site of a distribution with blocks (`Ising`, `Potts`, `PairwiseMRF`, `BernoulliRBM`,
      `joint()` of a restricted Boltzmann machine; alone, expanded or in a plate, masked or scaled)
      has these, such as the two colours of a checkerboard; the hidden units of a `BernoulliRBM`,
      which the site does not hold, are drawn on the way;
    - any other discrete site, such as the assignments of a mixture in a plate, is one block.

    What else of the model depends on such a site, the likelihood and other sites, must be a sum
    over its elements, or over those of one block: then the log odds of an element are those of its
    distribution plus what each state contributes, found by evaluating the model with *all* elements
    in one state. Which axis of a log density belongs to which of the site is read from shapes,
    aligned at the right, after undoing `to_event` where needed; `init` tries out, with random
    values, that no element depends on another, and refuses the site if one does. So missing
    observations are masked, `dist.Normal(x, noise).mask(is_observed)`, not indexed.

    Continuous sites need a kernel of their own,
    `numpyro.infer.Gibbs([(BlockGibbs(model), ["x"]), (NUTS(model), ["noise"])])`. There NumPyro
    draws each site once from its distribution to learn its shape, which lattices allow when they
    have a `sampler`.

    :param model: a NumPyro model.
    :param blocks: pairs `(sites, conditional)`, visited in this order: names of sites, and
        `conditional(values, *args, **kwargs)`, their full conditional given the values of all
        latent sites and the arguments of the model, as a NumPyro distribution (or, of several
        sites, a dictionary of distributions, independent of each other). The sites can be
        continuous then. With None in place of `conditional` the blocks are found from the model,
        as those of all discrete sites are by default.
    :param num_steps: sweeps over all blocks in one draw.
    """

    def __init__(
        self,
        model: Callable,
        blocks: Sequence[tuple[Sequence[str], Callable | None]] | None = None,
        *,
        num_steps: int = 1,
    ):
        super().__init__(model, num_steps)
        self._blocks = None if blocks is None else _pairs_of(blocks)

    def _own_sites(self, discrete: list[str], continuous: list[str]) -> list[str]:
        if self._blocks is None:
            return super()._own_sites(discrete, continuous)
        named = [name for sites, _ in self._blocks for name in sites]
        given = {name for sites, conditional in self._blocks if conditional for name in sites}
        unknown = [name for name in named if name not in discrete + continuous]
        missed = [name for name in discrete + continuous if name not in named]
        if unknown or missed:
            raise ValueError(
                f"The blocks of BlockGibbs must hold every latent site once: they miss {missed}, "
                f"and {unknown} are no latent sites of the model. Pairs (sites, None) are drawn "
                "in blocks found from the model; other sites belong to another kernel of "
                "numpyro.infer.Gibbs."
            )
        super()._own_sites(
            [n for n in named if n in discrete], [n for n in continuous if n not in given]
        )
        return named

    def _plan(
        self, fns: dict[str, Any], values: Values, trace_at: Trace
    ) -> tuple[SiteUpdate | GivenConditional, ...]:
        def found(name: str) -> SiteUpdate:
            update = SiteUpdate.of(name, fns[name], blocks_of(fns[name]), values, trace_at)
            way_out = (
                "use DiscreteLangevin or GibbsWithGradients, or give the full conditional, "
                f"blocks=[([{name!r}], conditional)]"
            )
            check_elementwise("BlockGibbs", update, values[name].shape, way_out)
            return update

        updates: list[SiteUpdate | GivenConditional] = []
        for block, conditional in self._blocks or ((tuple(fns), None),):
            if conditional is None:
                updates.extend(map(found, block))
            else:
                updates.append(GivenConditional(block, conditional))
        return tuple(updates)

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        trace_at = self._trace_at(model_args, model_kwargs)
        updates = [update for update in self._found.plan if isinstance(update, SiteUpdate)]
        log_weights = [update.log_weights(z, trace_at) for update in updates]
        # NaN in the data, or an element whose states are all impossible.
        best = [jnp.max(x, axis=0) for x in jax.tree.leaves(log_weights)]
        own = [update.own_log_prob(z, trace_at) for update in updates]
        return DiscreteState(jnp.array(0), z, rng_key), (*best, *jax.tree.leaves(own))

    def _sample_chain(self, state, model_args, model_kwargs):
        trace_at = self._trace_at(model_args, model_kwargs)
        updates = self._found.plan
        rng_key, key_sweeps = random.split(state.rng_key)
        if len(updates) == 1:  # what does not change between sweeps is computed once
            z = state.z | updates[0].draw(key_sweeps, state.z, trace_at, self._num_steps)
        else:

            def sweep(z, key):
                keys = random.split(key, len(updates))
                for update, key_update in zip(updates, keys, strict=True):
                    z = z | update.draw(key_update, z, trace_at, 1)
                return z, None

            z, _ = lax.scan(sweep, state.z, random.split(key_sweeps, self._num_steps))
        return DiscreteState(state.i + 1, z, rng_key)


def _pairs_of(blocks: Any) -> tuple[tuple[tuple[str, ...], Callable | None], ...]:
    """The pairs as tuples; raise unless each is `(names, callable or None)` and no name repeats."""
    checked = []
    for block in blocks:
        if not isinstance(block, tuple) or len(block) != 2 or isinstance(block[0], str):
            raise ValueError(
                "blocks must be pairs of a list of names of sites and their conditional, such as "
                f"[(['x'], None), (['z'], conditional)], got {block!r}."
            )
        names, conditional = tuple(block[0]), block[1]
        if not (conditional is None or callable(conditional)):
            raise ValueError(
                f"The conditional of the sites {list(names)} must be a function of the values of "
                f"all sites that returns a NumPyro distribution, or None, got {conditional!r}."
            )
        checked.append((names, conditional))
    named = [name for names, _ in checked for name in names]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ValueError(f"The blocks of BlockGibbs overlap: {twice} stand in several.")
    return tuple(checked)
