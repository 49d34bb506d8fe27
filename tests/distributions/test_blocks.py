# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Lattices and random fields: their weights, edge by edge, and their blocks, site by site."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy.special import log_softmax

import numpyro_scores as ns
from numpyro_scores.distributions import Spin

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
assert_close = np.testing.assert_allclose
EXACT = {"rtol": 1e-12, "atol": 1e-12}

log_prob = jax.jit(lambda d, x: d.log_prob(x))


@jax.jit
def conditionals(d, x):
    """Of each site, log p of each state given all other blocks, `(states, *x.shape)`."""
    blocks = [d.conditional(block, x) for block in range(d.num_blocks)]
    return d.join(tuple(c.log_prob(c.enumerate_support(expand=False)) for c in blocks))


def ising(shape=(4, 4), periodic=True):
    return ns.Ising(shape, 0.3, RNG.normal(size=shape), periodic)


def potts(shape=(2, 4), periodic=True, num_states=3):
    return ns.Potts(shape, num_states, 0.4, RNG.normal(size=(*shape, num_states)), periodic)


def pairwise(num_states=3, tables=True):
    pairs = np.stack(np.triu_indices(6, 1), -1)
    edges = RNG.permuted(RNG.permutation(pairs)[:8], axis=1)
    couplings = RNG.normal(size=(8, num_states, num_states) if tables else 8)
    return ns.PairwiseMRF(edges, couplings, RNG.normal(size=(6, num_states)), num_states)


def joint_rbm():
    return ns.BernoulliRBM(RNG.normal(size=(3, 2)), RNG.normal(size=3), RNG.normal(size=2)).joint()


def states(d):
    """The states of one site."""
    return np.array([-1, 1]) if isinstance(d, ns.Ising) else np.arange(getattr(d, "num_states", 2))


def draw(d, *batch):
    return RNG.choice(states(d), size=(*batch, *d.event_shape)).astype(np.int8)


def edges_of(d):
    """The two ends of each edge, as indices into a point."""
    if isinstance(d, ns.PairwiseMRF):
        return [((i,), (j,)) for i, j in d.edges]
    rows, columns = d.event_shape
    edges = []
    for i, j in np.ndindex(rows, columns):
        if columns > 1 and (d.periodic or j + 1 < columns):
            edges.append(((i, j), (i, (j + 1) % columns)))
        if rows > 1 and (d.periodic or i + 1 < rows):
            edges.append(((i, j), ((i + 1) % rows, j)))
    return edges


def log_weight(d, x):
    """One edge and one site at a time."""
    if isinstance(d, ns.Ising):
        pairs = [d.coupling * x[i] * x[j] for i, j in edges_of(d)]
        return sum(map(float, pairs)) + np.sum(np.asarray(d.field) * x)
    fields = np.asarray(d.field if isinstance(d, ns.Potts) else d.fields)
    sites = np.take_along_axis(fields, x.astype(int)[..., None], -1).sum()
    if isinstance(d, ns.Potts):
        return float(d.coupling) * sum(x[i] == x[j] for i, j in edges_of(d)) + sites
    couplings = np.asarray(d.couplings)
    if couplings.ndim == 3:
        weights = [table[x[i], x[j]] for (i, j), table in zip(d.edges, couplings, strict=True)]
    else:
        weights = [k * (x[i] == x[j]) for (i, j), k in zip(d.edges, couplings, strict=True)]
    return sum(weights) + sites


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3), (4, 1)])
@pytest.mark.parametrize("make", [ising, potts])
def test_each_edge_of_a_lattice_counts_once(x64, make, shape, periodic):
    d = make(shape, periodic)
    x = draw(d, 3)
    assert_close(log_prob(d, x), [log_weight(d, x) for x in x], **EXACT)


@pytest.mark.parametrize("num_states, tables", [(3, True), (2, True), (3, False)])
def test_the_first_node_of_an_edge_is_in_the_rows_of_its_table(x64, num_states, tables):
    d = pairwise(num_states, tables)
    x = draw(d, 3)
    assert_close(log_prob(d, x), [log_weight(d, x) for x in x], **EXACT)


def test_a_positive_coupling_aligns_and_a_positive_field_points_up(x64):
    up = np.ones((4, 4))
    mixed = np.where(np.indices((4, 4)).sum(0) % 2, up, -up)
    ising = ns.Ising((4, 4), 1.0, 0.5)
    assert_close(log_prob(ising, np.stack([up, -up, mixed])), [32 + 8, 32 - 8, -32])
    potts = ns.Potts((4, 4), 3, 1.0, [0.0, 0.0, 2.0])
    assert_close(log_prob(potts, np.stack([2 * up, 0 * up, 1 + (mixed > 0)])), [32 + 32, 32, 16])


def test_ising_potts_and_random_fields_of_two_states_are_one_model(x64):
    ising = ns.Ising((3, 4), 0.3, 0.2, periodic=False)
    potts = ns.Potts((3, 4), 2, 0.6, [-0.2, 0.2], periodic=False)
    edges = [(4 * i + j, 4 * k + m) for (i, j), (k, m) in edges_of(ising)]
    graph = ns.PairwiseMRF(edges, np.full(17, 0.6), np.tile([-0.2, 0.2], (12, 1)))
    x = RNG.integers(2, size=(5, 3, 4))
    expected = log_prob(ising, 2 * x - 1) + 0.3 * 17
    assert_close(log_prob(potts, x), expected, **EXACT)
    assert_close(log_prob(graph, x.reshape(5, 12)), expected, **EXACT)


WITH_BLOCKS = {
    "checkerboard": ising,
    "torus with an odd side": lambda: ising((3, 4)),
    "open lattice, even": lambda: ising((3, 4), periodic=False),
    "open lattice, odd": lambda: ising((3, 3), periodic=False),
    "torus of width two": lambda: ising((2, 2)),
    "potts": potts,
    "potts, two states, odd": lambda: potts((3, 3), periodic=False, num_states=2),
    "tables": pairwise,
    "agreement of two states": lambda: pairwise(2, tables=False),
    "machine": joint_rbm,
}


@pytest.mark.parametrize("make", WITH_BLOCKS.values(), ids=WITH_BLOCKS)
def test_the_conditional_of_each_site_by_changing_it(x64, make):
    d = make()
    x = draw(d)
    changed = np.tile(x.reshape(-1), (len(states(d)), x.size, 1))
    changed[:, np.arange(x.size), np.arange(x.size)] = states(d)[:, None]
    changed = changed.reshape(len(states(d)), x.size, *d.event_shape)
    log_weights = np.asarray(log_prob(d, changed))
    expected = log_softmax(log_weights, axis=0).reshape(-1, *d.event_shape)
    assert_close(conditionals(d, x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [ising, lambda: ising((3, 4)), pairwise, joint_rbm])
def test_batches_of_small_integers_stay_what_they_are(make):
    d = make()
    x = draw(d, 2, 3)
    blocks = d.split(x)
    joined = d.join(blocks)
    assert joined.dtype == blocks[0].dtype == np.int8
    np.testing.assert_array_equal(joined, x)
    found = conditionals(d, x)
    one_by_one = jnp.stack([conditionals(d, x) for x in x[1]], 1)
    assert_close(found[:, 1], one_by_one, rtol=1e-5, atol=1e-5)


def complete_bipartite():
    edges = [[i, j + 4] for i in range(4) for j in range(4)]
    return ns.PairwiseMRF(edges, np.ones(16), np.ones((8, 2)))


def ring():
    return ns.PairwiseMRF([[i, (i + 1) % 5] for i in range(5)], np.ones(5), np.ones((5, 2)))


def no_edges():
    return ns.PairwiseMRF(np.zeros((0, 2), int), np.zeros(0), np.ones((3, 2)))


@pytest.mark.parametrize(
    "make, num_blocks",
    [
        (lambda: ising((4, 6)), 2),
        (lambda: ising((3, 5), periodic=False), 2),
        (lambda: ising((3, 4)), 3),
        (lambda: ising((5, 5)), 3),
        (lambda: ising((2, 3)), 3),
        (lambda: ising((1, 5)), 3),
        (lambda: ising((1, 1)), 1),
        (complete_bipartite, 2),
        (ring, 3),
        (no_edges, 1),
    ],
)
def test_no_edge_lies_in_a_block_and_there_are_as_few_as_can_be(make, num_blocks):
    d = make()
    assert d.num_blocks == num_blocks
    sites = np.arange(np.prod(d.event_shape)).reshape(d.event_shape)
    blocks = [set(np.ravel(block).tolist()) for block in d.split(sites)]
    assert sorted(site for block in blocks for site in block) == list(range(sites.size))
    for i, j in edges_of(d):
        assert not any({sites[i], sites[j]} <= block for block in blocks)


def test_a_point_may_be_given_by_its_blocks():
    d = ising((3, 4))
    x = draw(d)
    for block in range(3):
        carried = list(d.split(x))
        carried[block] = np.zeros_like(carried[block])  # not looked at
        found = d.conditional(block, tuple(carried)).logits
        np.testing.assert_array_equal(found, d.conditional(block, x).logits)


def test_a_spin_has_the_probabilities_of_its_logits():
    d = Spin(np.array([-1.0, 0.5], np.float32))
    up = 1 / (1 + np.exp(-d.logits))
    every = d.enumerate_support()
    np.testing.assert_array_equal(every, [[-1, -1], [1, 1]])
    assert d.enumerate_support(expand=False).shape == (2, 1)
    assert_close(np.exp(d.log_prob(every)), [1 - up, up], rtol=1e-6)
    assert_close(d.mean, 2 * up - 1, rtol=1e-6)
    assert_close(d.variance, 4 * up * (1 - up), rtol=1e-6)
    x = np.asarray(d.sample(random.key(0), (4000,)))
    assert x.dtype == np.int8 and set(np.unique(x)) == {-1, 1}
    assert np.all(np.abs(x.mean(0) - d.mean) < 4 * np.sqrt(d.variance / 4000))


def test_of_two_states_the_gradient_is_the_difference_of_a_flip(x64):
    for d in (ising((2, 2)), potts((2, 2), num_states=2), pairwise(2), joint_rbm()):
        x = draw(d).astype(float)
        i = np.unravel_index(1, d.event_shape)
        ends = np.stack([x, x])
        ends[(slice(None), *i)] = states(d)
        low, high = log_prob(d, ends)
        found = jax.jit(jax.grad(lambda x, d=d: d.log_prob(x)))(x)[i]
        assert_close(found, (high - low) / np.ptp(states(d)), **EXACT)


def test_of_more_colours_a_graph_keeps_its_identity():
    first, again = ring(), ring()
    traces = []

    @jax.jit
    def compiled(d, x):
        traces.append(d)
        return d.log_prob(x)

    for d in (first, again):
        compiled(d, np.zeros(5))
    assert len(traces) == 1
    assert first._graph == again._graph and first._blocks is again._blocks
