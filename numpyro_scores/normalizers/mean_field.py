# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A lower bound of the normaliser from independent sites."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.scipy.special import entr

from numpyro_scores._validation import check_count
from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.distributions.boltzmann.blocks import ColorBlocks, Graph, graph_blocks
from numpyro_scores.distributions.boltzmann.states import forbidden, lowered
from numpyro_scores.normalizers._one_sided import OneSidedMethod
from numpyro_scores.normalizers._pairwise import PairwiseForm, pairwise_form

# A start in which all sites are in one state has this log weight for it.
SURE = 4.0
# Less than this is zero, so that nothing is put where it is forbidden.
LEAST = 1e-30


@dataclass(frozen=True)
class MeanFieldBound(OneSidedMethod):
    r"""
    A lower bound of :math:`\log Z` of a lattice, random field or machine,

    .. math:: \log Z \ge \max_q \sum_{(i, j)} E_{q_i q_j} w_{ij}(x_i, x_j) + \sum_i E_{q_i} h_i(x_i)
        + \sum_i H(q_i),

    over independent sites :math:`q` (Gibbs' inequality; Wainwright & Jordan 2008, section 5.2).
    It is equal where there are no interactions, and holds for every `q`, converged or not. `q` is
    found by coordinate ascent, a colour of sites at a time, from where sites are without
    interactions, from all of them in one state, and from `num_starts` random points; the best is
    taken.

    Continuous visible units are integrated out. The bound is differentiable: at its maximum the
    derivative of `q` does not count, and is left out.

    :param num_sweeps: sweeps of coordinate ascent.
    :param num_starts: random points to start from.
    :raises ValueError: if one is no positive integer.
    """

    num_sweeps: int = 100
    num_starts: int = 8

    def __post_init__(self):
        check_count("num_sweeps", self.num_sweeps)
        check_count("num_starts", self.num_starts)

    is_lower = True

    def _bound(self, distribution: BoltzmannDistribution, key: Array) -> Array:
        edges, form = pairwise_form(distribution)
        soft = jax.tree.map(lax.stop_gradient, form.softened())
        n, q = form.fields.shape
        one_state = SURE * jnp.repeat(jnp.eye(q)[:, None], n, 1)
        anywhere = 2 * random.normal(key, (self.num_starts, n, q))
        starts = jnp.concatenate([jnp.zeros((1, n, q)), one_state, anywhere]) + soft.fields
        blocks = graph_blocks(Graph.of(n, edges))

        def ascend(logits):
            sites = jax.nn.softmax(logits)
            sites = lax.fori_loop(
                0, self.num_sweeps, lambda _, sites: _sweep(edges, blocks, soft, sites), sites
            )
            sites = jnp.where(sites < LEAST, 0.0, sites)
            return sites / jnp.sum(sites, -1, keepdims=True)

        found = lax.map(ascend, starts)
        best = found[jnp.argmax(lax.map(lambda sites: mean_field(edges, soft, sites), found))]
        return mean_field(edges, form, best)


def mean_field(edges: np.ndarray, form: PairwiseForm, sites: Array) -> Array:
    """
    The bound of independent sites.

    :param sites: the probability of each state, shape `(n, q)`.
    """
    first, second = edges.T
    pairs = jnp.einsum("ea,eab,eb->", sites[first], lowered(form.tables), sites[second])
    weight = forbidden(pairs + jnp.sum(lowered(form.fields) * sites))
    return form.constant + weight + jnp.sum(entr(sites))


def _sweep(edges: np.ndarray, blocks: ColorBlocks, form: PairwiseForm, sites: Array) -> Array:
    first, second = edges.T
    for block in blocks.sites:
        to_first = jnp.einsum("eab,eb->ea", form.tables, sites[second])
        to_second = jnp.einsum("eab,ea->eb", form.tables, sites[first])
        logits = form.fields.at[first].add(to_first).at[second].add(to_second)
        sites = sites.at[block].set(jax.nn.softmax(logits[block]))
    return sites
