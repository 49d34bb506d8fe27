# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Blocks of sites that do not interact: a checkerboard, or the colours of a graph."""

import heapq
import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


@dataclass(frozen=True)
class Checkerboard:
    """
    The two colours of a lattice with an even number of columns, and of rows if it is periodic.
    Entry `(i, j)` of block `k` is the site of row `i` and column `2 j + (i + k) % 2`: the blocks
    are arrays of half the columns, and the neighbours of all sites of one are shifts of the other.
    """

    shape: tuple[int, int]
    periodic: bool
    num_blocks = 2
    site_ndim = 2

    def _is_right(self, block: int, x: Array) -> Array:
        """Whether the sites are the right ones of their pairs of columns, in the shape of `x`."""
        is_right = ((jnp.arange(self.shape[0]) + block) % 2 == 1)[:, None]
        return jnp.broadcast_to(is_right, x.shape)

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        x = jnp.asarray(x)
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        left, right = pairs[..., 0], pairs[..., 1]
        is_right = self._is_right(0, left)
        return jnp.where(is_right, right, left), jnp.where(is_right, left, right)

    def join(self, blocks: tuple[Array, ...]) -> Array:
        black, white = blocks
        is_right = self._is_right(0, black)
        pairs = [jnp.where(is_right, white, black), jnp.where(is_right, black, white)]
        return jnp.stack(pairs, -1).reshape(*black.shape[:-1], -1)

    def neighbor_sum(self, block: int, blocks: tuple[Array, ...]) -> Array:
        """At each site of the block, the sum of its neighbours in the other."""
        other = blocks[1 - block]
        vertical = self._shift(other, 1, -2) + self._shift(other, -1, -2)
        beside = jnp.where(
            self._is_right(block, other), self._shift(other, -1, -1), self._shift(other, 1, -1)
        )
        return other + beside + vertical

    def _shift(self, x: Array, step: int, axis: int) -> Array:
        if self.periodic:
            return jnp.roll(x, step, axis)
        keep = slice(None, -1) if step > 0 else slice(1, None)
        x = x[..., keep, :] if axis == -2 else x[..., keep]
        widths = [(0, 0)] * x.ndim
        widths[axis] = (1, 0) if step > 0 else (0, 1)
        return jnp.pad(x, widths)


@dataclass(frozen=True)
class Graph:
    """An undirected graph, hashable and compared by value; `edges` has shape `(num_edges, 2)`."""

    num_nodes: int
    _edges: bytes = field(repr=False)

    @classmethod
    def of(cls, num_nodes: int, edges: np.ndarray) -> "Graph":
        return cls(num_nodes, np.ascontiguousarray(edges, np.int32).tobytes())

    @property
    def edges(self) -> np.ndarray:
        return np.frombuffer(self._edges, np.int32).reshape(-1, 2)


class ColorBlocks:
    """
    The colours of a graph, as vectors of their sites, in ascending order.

    - **sites** - for each block, its nodes.
    - **neighbors** - for each block, `(sites, degree)`: where the neighbours stand in the blocks
      laid end to end; the entry after the last site stands for none.
    - **messages** - for each block, `(sites, degree)`: the number of the edge, plus the number of
      edges where the site is its second node; twice the number of edges stands for none.

    :param graph: a graph in which no edge joins two nodes of one colour.
    :param colors: of each node, `0, 1, ...`
    :param shape: how the nodes are laid out in a point.
    """

    site_ndim = 1

    def __init__(self, graph: Graph, colors: np.ndarray, shape: tuple[int, ...]) -> None:
        self.shape = shape
        edges = graph.edges
        self.num_blocks = int(colors.max()) + 1
        # int32 with and without x64: JAX may take an array that it has seen for the other's.
        self.sites = [
            np.flatnonzero(colors == color).astype(np.int32) for color in range(self.num_blocks)
        ]
        self.position = np.argsort(np.concatenate(self.sites)).astype(np.int32)

        receiver = edges.T.reshape(-1)
        sender = edges[:, ::-1].T.reshape(-1)
        order = np.argsort(receiver, kind="stable")
        degrees = np.bincount(receiver, minlength=graph.num_nodes)
        column = np.arange(len(order)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
        width = int(degrees.max(initial=0))
        neighbors = np.full((graph.num_nodes, width), graph.num_nodes)
        messages = np.full((graph.num_nodes, width), 2 * len(edges))
        neighbors[receiver[order], column] = self.position[sender[order]]
        messages[receiver[order], column] = order
        widths = [int(degrees[sites].max()) for sites in self.sites]
        self.neighbors = [
            neighbors[s, :d].astype(np.int32) for s, d in zip(self.sites, widths, strict=True)
        ]
        self.messages = [
            messages[s, :d].astype(np.int32) for s, d in zip(self.sites, widths, strict=True)
        ]

    def split(self, x: ArrayLike) -> tuple[Array, ...]:
        x = jnp.asarray(x)
        flat = x.reshape(*x.shape[: x.ndim - len(self.shape)], math.prod(self.shape))
        return tuple(flat[..., sites] for sites in self.sites)

    def join(self, blocks: tuple[Array, ...]) -> Array:
        flat = jnp.concatenate(blocks, -1)[..., self.position]
        return flat.reshape(*flat.shape[:-1], *self.shape)

    def gather(self, block: int, blocks: tuple[Array, ...]) -> Array:
        """At each site of the block its neighbours, `(..., sites, degree)`; zero where is none."""
        none = jnp.zeros_like(blocks[0], shape=(*blocks[0].shape[:-1], 1))
        return jnp.concatenate([*blocks, none], -1)[..., self.neighbors[block]]

    def neighbor_sum(self, block: int, blocks: tuple[Array, ...]) -> Array:
        """At each site of the block, the sum of its neighbours."""
        return jnp.sum(self.gather(block, blocks), -1)


@lru_cache(maxsize=64)
def lattice_blocks(shape: tuple[int, int], periodic: bool) -> Checkerboard | ColorBlocks:
    """Two colours, or three for a torus with an odd side."""
    rows, columns = shape
    if columns % 2 == 0 and (rows % 2 == 0 or not periodic):
        return Checkerboard(shape, periodic)
    rings = [_ring_colors(size, periodic) for size in shape]
    colors = np.add.outer(*rings) % max(2, *(1 + ring.max() for ring in rings))
    sites = np.arange(rows * columns).reshape(shape)
    edges = []
    for axis in (0, 1):
        ahead = np.roll(sites, -1, axis)
        inner = slice(None) if periodic else slice(None, -1)
        if shape[axis] > 1:
            pairs = np.moveaxis(np.stack([sites, ahead], -1), axis, 0)[inner]
            edges.append(pairs.reshape(-1, 2))
    edges = np.concatenate([*edges, np.zeros((0, 2), int)])
    return ColorBlocks(Graph.of(rows * columns, edges), colors.reshape(-1), shape)


def _ring_colors(size: int, periodic: bool) -> np.ndarray:
    colors = np.arange(size) % 2
    if periodic and size % 2 == 1 and size > 1:
        colors[-1] = 2
    return colors


@lru_cache(maxsize=64)
def graph_blocks(graph: Graph) -> ColorBlocks:
    """
    A greedy colouring, most constrained node first, which finds two colours where two will do
    (Brelaz 1979, "New methods to color the vertices of a graph").
    """
    neighbors: list[list[int]] = [[] for _ in range(graph.num_nodes)]
    for i, j in graph.edges.tolist():
        neighbors[i].append(j)
        neighbors[j].append(i)
    colors = np.full(graph.num_nodes, -1)
    taken: list[set[int]] = [set() for _ in range(graph.num_nodes)]
    queue = [(0, -len(neighbors[i]), i) for i in range(graph.num_nodes)]
    heapq.heapify(queue)
    while queue:
        i = heapq.heappop(queue)[-1]
        if colors[i] >= 0:  # left over from when it was less constrained
            continue
        colors[i] = color = next(c for c in count() if c not in taken[i])
        for j in neighbors[i]:
            if colors[j] < 0 and color not in taken[j]:
                taken[j].add(color)
                heapq.heappush(queue, (-len(taken[j]), -len(neighbors[j]), j))
    return ColorBlocks(graph, colors, (graph.num_nodes,))
