# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Spanning trees that together use every edge of a graph, and their normalisers."""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp

from numpyro_scores.distributions.boltzmann.blocks import Graph


class SpanningTrees(NamedTuple):
    """
    Trees, or forests, with an order in which nodes send their sums to the node above them.

    - **senders**, **receivers** - nodes, each with shape `(num_trees, n)`; node `n` is above roots.
    - **tables** - the number of the edge, plus `m` where the sender is its second node; `2 m` from
      a root, shape `(num_trees, n)`.
    - **shares** - share of the trees that use each edge, shape `(m,)`.
    """

    senders: np.ndarray
    receivers: np.ndarray
    tables: np.ndarray
    shares: np.ndarray


@lru_cache(maxsize=32)
def spanning_trees(graph: Graph, num_trees: int) -> SpanningTrees:
    """Trees of the edges that were used least, `num_trees` or as many as use all edges."""
    n, edges = graph.num_nodes, graph.edges
    rng = np.random.default_rng(0)
    used = np.zeros(len(edges), np.int64)
    orders = []
    while len(orders) < num_trees or np.any(used == 0):
        chosen = _forest(n, edges, np.lexsort((rng.random(len(edges)), used)))
        used[chosen] += 1
        orders.append(_upward(n, edges, chosen))
    senders, receivers, tables = np.stack(orders, axis=1).astype(np.int32)
    return SpanningTrees(senders, receivers, tables, used / len(orders))


def _forest(n: int, edges: np.ndarray, order: np.ndarray) -> list[int]:
    """The edges of a spanning forest, the first in the order that close no circle (Kruskal)."""
    above = list(range(n))

    def root(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    chosen = []
    for e in order.tolist():
        i, j = (root(node) for node in edges[e].tolist())
        if i != j:
            above[i] = j
            chosen.append(e)
    return chosen


def _upward(n: int, edges: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Sender, receiver and table of each step, leaves first, shape `(3, n)`."""
    m = len(edges)
    neighbors: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for e in chosen:
        i, j = edges[e].tolist()
        # The table has the states of the sender in its rows.
        neighbors[i].append((j, e + m))
        neighbors[j].append((i, e))
    steps, seen = [], [False] * n
    for start in range(n):
        if seen[start]:
            continue
        seen[start] = True
        queue = [(start, n, 2 * m)]
        for node, _, _ in queue:  # it grows
            for other, table in neighbors[node]:
                if not seen[other]:
                    seen[other] = True
                    queue.append((other, node, table))
        steps += queue
    return np.array(steps[::-1]).T


def log_normalizers_of_trees(trees: SpanningTrees, tables: Array, fields: Array) -> Array:
    """
    Of each tree with these tables on its edges.

    :param tables: shape `(m, q, q)`.
    :param fields: shape `(n, q)`.
    :return: shape `(num_trees,)`.
    """
    q = fields.shape[1]
    directed = jnp.concatenate([tables, jnp.swapaxes(tables, 1, 2), jnp.zeros((1, q, q))])
    start = jnp.concatenate([fields, jnp.zeros((1, q))])

    def of_tree(tree):
        def send(log_sums, step):
            sender, receiver, table = step
            message = logsumexp(log_sums[sender][:, None] + directed[table], 0)
            return log_sums.at[receiver].add(message), None

        return lax.scan(send, start, tree)[0][-1, 0]

    return jax.vmap(of_tree)(tuple(map(jnp.asarray, trees[:3])))
