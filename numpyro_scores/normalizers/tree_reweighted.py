# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""An upper bound of the normaliser from spanning trees."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp

from numpyro_scores._validation import check_count
from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.distributions.boltzmann.blocks import Graph
from numpyro_scores.normalizers._one_sided import OneSidedMethod
from numpyro_scores.normalizers._pairwise import PairwiseForm, pairwise_form
from numpyro_scores.normalizers._spanning_trees import (
    SpanningTrees,
    log_normalizers_of_trees,
    spanning_trees,
)

MAX_EDGES = 2**14
DAMPING = 0.5


@dataclass(frozen=True)
class TreeReweightedBound(OneSidedMethod):
    r"""
    An upper bound of :math:`\log Z` of a lattice, random field or machine from spanning trees `T`
    of its graph (Wainwright, Jaakkola & Willsky 2005, "A new class of upper bounds on the log
    partition function"): :math:`\log Z` is convex in the weights, so that

    .. math:: \log Z \le \frac1N \sum_T \log Z_T, \qquad
        w^T_{ij} = w_{ij} / \rho_{ij} - m_{ij}(x_j) - m_{ji}(x_i), \quad
        h^T_i = h_i + \sum_j \rho_{ij} m_{ji}(x_i),

    with :math:`\rho_{ij}` the share of trees that use an edge: the weights of the trees are those
    of the graph on average, whatever the messages `m` are. So the bound holds whether or not
    these have converged; they are those of tree-reweighted belief propagation, which finds the
    least bound for these trees, each step half way. It is equal on a tree and without
    interactions. Trees use each edge about equally often. Continuous visible units are integrated
    out; forbidden states weigh :math:`e^{-100}`. The bound is differentiable, with
    the messages held as they are.

    :param num_trees: number of trees, or more if it takes more to use all edges.
    :param num_steps: steps of belief propagation.
    :raises ValueError: if one is no positive integer, or for a graph of more than 2^14 edges.
    """

    num_trees: int = 32
    num_steps: int = 200

    def __post_init__(self):
        check_count("num_trees", self.num_trees)
        check_count("num_steps", self.num_steps)

    is_lower = False

    def refusal(self, distribution: BoltzmannDistribution) -> str | None:
        if reason := super().refusal(distribution):
            return reason
        num_edges = len(pairwise_form(distribution)[0])
        if num_edges <= MAX_EDGES:
            return None
        return (
            f"takes graphs of up to 2^14 edges, got {num_edges}: AnnealedImportanceSampling has an "
            "upper end for larger ones."
        )

    def _bound(self, distribution: BoltzmannDistribution, key: Array) -> Array:
        edges, form = pairwise_form(distribution)
        form = form.softened()
        trees = spanning_trees(Graph.of(len(form.fields), edges), self.num_trees)
        shares = jnp.asarray(trees.shares, form.fields.dtype)
        still = jax.tree.map(lax.stop_gradient, form)
        messages = propagated(edges, still, shares, self.num_steps)
        # Where they have not settled, no messages at all may be better.
        none = jnp.zeros_like(messages)
        bounds = [_mean_of_trees(trees, edges, still, shares, m) for m in (messages, none)]
        messages = jnp.where(bounds[0] <= bounds[1], messages, none)
        return form.constant + _mean_of_trees(trees, edges, form, shares, messages)


def propagated(
    edges: np.ndarray,
    form: PairwiseForm,
    shares: Array,
    num_steps: int,
    start: Array | None = None,
) -> Array:
    """
    Messages of tree-reweighted belief propagation; with shares of 1, of belief propagation.

    :param start: messages; without any that say something unless given.
    :return: from the second node of each edge to the first, and then from the first to the second,
        shape `(2, m, q)`.
    """
    first, second = edges.T
    weights = form.tables / shares[:, None, None]

    def step(_, messages):
        sums = beliefs(edges, form.fields, shares, messages)
        to_first = logsumexp(weights + (sums[second] - messages[1])[:, None, :], 2)
        to_second = logsumexp(weights + (sums[first] - messages[0])[:, :, None], 1)
        new = jnp.stack([to_first, to_second])
        new -= jnp.max(new, -1, keepdims=True)
        return (1 - DAMPING) * messages + DAMPING * new

    if start is None:
        start = jnp.zeros((2, len(edges), form.fields.shape[1]), form.fields.dtype)
    return lax.fori_loop(0, num_steps, step, start)


def beliefs(edges: np.ndarray, fields: Array, shares: Array, messages: Array) -> Array:
    """Log weights of the states of each node, shape `(n, q)`."""
    first, second = edges.T
    weighted = shares[None, :, None] * messages
    return fields.at[first].add(weighted[0]).at[second].add(weighted[1])


def _mean_of_trees(
    trees: SpanningTrees, edges: np.ndarray, form: PairwiseForm, shares: Array, messages: Array
) -> Array:
    to_first, to_second = messages
    tables = form.tables / shares[:, None, None] - to_first[:, :, None] - to_second[:, None, :]
    fields = beliefs(edges, form.fields, shares, messages)
    return jnp.mean(log_normalizers_of_trees(trees, tables, fields))
