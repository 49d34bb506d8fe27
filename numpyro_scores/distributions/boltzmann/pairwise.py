# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A Markov random field with pairwise interactions on any graph."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from numpyro_scores._validation import is_concrete
from numpyro_scores.distributions.boltzmann.base import (
    ColoredDistribution,
    PartitionSum,
    as_parameter,
    check_weights,
)
from numpyro_scores.distributions.boltzmann.blocks import ColorBlocks, Graph, graph_blocks
from numpyro_scores.distributions.boltzmann.states import (
    States,
    check_num_states,
    forbidden,
    from_logits,
    indicators,
    lowered,
)


class PairwiseMRF(ColoredDistribution):
    r"""
    States :math:`x_i` of :math:`0, \dots, q - 1` on the nodes of a graph,
    :math:`\log p(x) = \sum_{e = (i, j)} w_e(x_i, x_j) + \sum_i h_{i, x_i} - \log Z`. With one
    coupling for each edge, :math:`w_e(x_i, x_j) = J_e 1[x_i = x_j]`: if :math:`J_e > 0`, neighbours
    agree. With a table for each edge, :math:`w_e(x_i, x_j)` is its entry, `couplings[e, x_i, x_j]`
    with `i, j = edges[e]`, the first node in the rows; it need not be symmetric. An entry of `-inf`
    forbids a state, in `fields`, or two beside each other, as in hard-core models.

    `log_prob` is **unnormalised** unless `log_normalizer` is given. Boltzmann machines are such
    fields: :math:`\sum_e W_e x_i x_j + \sum_i b_i x_i` with `x` in {0, 1} has the tables
    :math:`[[0, 0], [0, W_e]]` and the fields :math:`[0, b_i]`.

    The blocks are the colours of the graph by a greedy colouring, two for a bipartite graph, as
    vectors of nodes in ascending order. The `conditional` of a block is a `Categorical` with
    `logits`, or for two states a `Bernoulli` with `logits`.

    :param edges: pairs of nodes `0, ..., n - 1`, shape `(num_edges, 2)`, known when the model is
        compiled.
    :param couplings: shape `(num_edges,)` or `(num_edges, num_states, num_states)`.
    :param fields: :math:`h`, shape `(n, num_states)`.
    :param num_states: :math:`q`, at least 2.
    :param log_normalizer: :math:`\log Z`, shape `()`, from `numpyro_scores.log_normalizer`.
    :param sampler: draws for `sample`, so that NumPyro's `Predictive` and `Gibbs` work: what makes
        a kernel of a model, such as `functools.partial(numpyro_scores.BlockGibbs, num_steps=500)`.
        Each draw is where a chain of its own ends, after one draw of the kernel without warmup.
    :raises ValueError: if a parameter has another shape, or for an edge to a node that is not
        there, from a node to itself, or given twice, in whatever direction.
    """

    pytree_data_fields = ("couplings", "fields")
    pytree_aux_fields = ("_graph", "num_states")
    _interaction = "couplings"

    def __init__(
        self,
        edges: Any,
        couplings: ArrayLike,
        fields: ArrayLike,
        num_states: int = 2,
        *,
        log_normalizer: Any = None,
        sampler: Callable | None = None,
        validate_args: bool | None = None,
    ):
        self.num_states = q = check_num_states(num_states)
        fields = jnp.asarray(fields)
        if fields.ndim != 2 or fields.shape[1] != q:
            raise ValueError(
                f"fields must have shape (number of nodes, {q}), got shape {fields.shape}."
            )
        n = fields.shape[0]
        self._graph = Graph.of(n, _checked_edges(edges, n))
        m = len(self.edges)
        self.couplings = as_parameter("couplings", couplings, (m,), (m, q, q))
        self.fields = as_parameter("fields", fields, (n, q))
        check_weights("couplings", self.couplings)
        check_weights("fields", self.fields)
        support = States(tuple(range(q)))
        super().__init__((n,), support, log_normalizer, sampler, validate_args=validate_args)

    @property
    def edges(self) -> np.ndarray:
        """Pairs of nodes, shape `(num_edges, 2)`."""
        return self._graph.edges

    @property
    def _tables(self) -> Array:
        if self.couplings.ndim == 3:
            return self.couplings
        is_same = jnp.eye(self.num_states, dtype=bool)
        return jnp.where(is_same, self.couplings[:, None, None], 0.0)

    @property
    def _blocks(self) -> ColorBlocks:
        return graph_blocks(self._graph)

    def _log_weight(self, x: Array) -> Array:
        z = indicators(x, self.num_states)
        first, second = self.edges.T
        pairs = jnp.einsum("ea,eab,eb->", z[first], lowered(self._tables), z[second])
        return forbidden(pairs + jnp.sum(lowered(self.fields) * z))

    def _conditional(self, block: int, blocks: tuple[Array, ...]) -> dist.Distribution:
        # A table for each direction of each edge, with the states of the receiver in the rows;
        # the last one, of zeros, is for a site with fewer neighbours than others.
        tables = lowered(self._tables)
        none = jnp.zeros_like(tables, shape=(1, *tables.shape[1:]))
        directed = jnp.concatenate([tables, jnp.swapaxes(tables, 1, 2), none])
        directed = directed[self._blocks.messages[block]]
        neighbors = self._blocks.gather(block, blocks).astype(tables.dtype)
        messages = jnp.einsum(
            "ndab,...ndb->...na", directed, indicators(neighbors, self.num_states)
        )
        fields = lowered(self.fields[self._blocks.sites[block]])
        return from_logits(forbidden(messages + jnp.broadcast_to(fields, messages.shape)))

    def partition_sum(self) -> PartitionSum:
        return PartitionSum(
            self.num_states, self._graph.num_nodes, lambda s: self._log_weight(s.astype(float))
        )


def _checked_edges(edges: Any, num_nodes: int) -> np.ndarray:
    if not is_concrete(edges):
        raise ValueError("edges must be known when the model is compiled, got a traced array.")
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 2 or not np.issubdtype(edges.dtype, np.integer):
        raise ValueError(
            "edges must be integers of shape (num_edges, 2), got "
            f"{edges.dtype} of shape {edges.shape}."
        )

    def check(wrong: Any, what: str) -> None:
        if np.any(wrong):
            e = int(np.argmax(wrong))
            raise ValueError(f"edges[{e}] = {edges[e].tolist()} {what}")

    check(
        np.any((edges < 0) | (edges >= num_nodes), axis=1),
        f"joins a node that is not there: fields has {num_nodes} rows, so the nodes are 0 to "
        f"{num_nodes - 1}.",
    )
    check(edges[:, 0] == edges[:, 1], "joins a node to itself; put its weight into fields.")
    _, first, inverse = np.unique(
        np.sort(edges, axis=1), axis=0, return_index=True, return_inverse=True
    )
    check(
        first[inverse.reshape(-1)] != np.arange(len(edges)),
        "is given twice; the graph is undirected, so add the two couplings into one.",
    )
    return edges
