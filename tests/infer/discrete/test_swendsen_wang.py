# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""SwendsenWang: clusters, the enumerated transition matrix, draws, energies of Kaufman."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, draw, enumerated, mean_and_error
from jax import random
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components as scipy_components
from scipy.stats import chisquare

import numpyro_scores as ns
from numpyro_scores.distributions._wrapped import base_of
from numpyro_scores.infer.discrete.clusters import connected_components
from numpyro_scores.infer.discrete.swendsen_wang import (
    _edges,
    choices_of,
    cluster_logits,
    open_probs,
    random_partners,
)

# What takes time is to compile.
pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=6)
FIELD = RNG.normal(size=(2, 3, 3))
TRUTH = RNG.integers(3, size=(2, 2, 3))
K_CRITICAL = np.log(1 + np.sqrt(2)) / 2
EDGES = np.array([[0, 1], [2, 1], [2, 3], [3, 0], [3, 4]])
PRIORS = {
    "ising": lambda: ns.Ising((2, 3), 0.4, FIELD[..., 0], periodic=False),
    "torus": lambda: ns.Ising((2, 2), 0.3, 0.1),
    "potts": lambda: ns.Potts((2, 3), 3, 0.7, FIELD, periodic=False),
    "graph": lambda: ns.PairwiseMRF(EDGES, np.array([0.5, 0, 1, 0.3, 2]), FIELD.reshape(6, 3), 3),
    "antiferromagnet": lambda: ns.Ising((2, 3), -0.4, FIELD[..., 0], periodic=False),
    "frustrated": lambda: ns.PairwiseMRF(
        [[0, 1], [1, 2], [2, 0], [2, 3]],
        np.array([-0.7, -0.5, -0.9, 0.4]),
        FIELD[0, :2, :2].repeat(2, 0),
    ),
    "potts, negative": lambda: ns.Potts((2, 2), 3, -0.7, FIELD[:, :2], periodic=False),
    "both signs": lambda: ns.PairwiseMRF(
        EDGES, np.array([0.5, -0.4, 1, -0.3, 2]), FIELD.reshape(6, 3), 3
    ),
}


def without_data(prior):
    numpyro.sample("x", prior)


def with_data(prior):
    x = numpyro.sample("x", prior)
    size = int(np.prod(prior.event_shape))
    y = dist.Normal(0.5 * x**2 + x, 0.8).to_event(x.ndim)
    numpyro.sample("y", y, obs=DATA[:size].reshape(prior.event_shape))


def tempered(prior):
    with numpyro.handlers.scale(scale=0.4):
        with_data(prior)


MODELS = {"without data": without_data, "with data": with_data, "tempered": tempered}
CASES = [(p, m) for p in PRIORS for m in MODELS if p in ("ising", "potts") or m == "with data"]


def looked_at(model):
    kernel = ns.SwendsenWang(model)
    kernel.look((), {})
    return kernel, kernel._found.plan[0]


def transition_matrix(kernel, site, x):
    """
    The mean over the pairings of the states of the sum over all states of the edges of
    P(edges | x, pairing) P(y | edges, x, pairing).
    """
    q = len(site.states)
    pairings = {2: [[1, 0]], 3: [[0, 2, 1], [2, 1, 0], [1, 0, 2]]}[q]
    pairings = jnp.array(pairings)
    field = jax.jit(
        lambda: site.random_field({"x": x[0]}, kernel._trace_at((), {}))._replace(ends=())
    )()
    ends = _edges(base_of(kernel._trace_at((), {})({"x": x[0]})["x"]["fn"]))[0]
    field = jax.tree.map(lambda leaf: leaf[0], field)
    if np.all(field.couplings >= 0):  # then they do not matter
        pairings = pairings[:1]
    numbers = np.searchsorted(site.states, x)
    matrices = [_of_pairing(numbers, p, field, ends, site.event_shape) for p in pairings]
    return np.mean(matrices, axis=0)


def _of_pairing(numbers, partners, field, ends, shape):
    @jax.jit
    @jax.vmap
    def of_x(number):
        probs = open_probs(*ends(number), field.couplings, partners)
        return probs, choices_of(number, field.couplings, partners)

    open_p, choices = map(np.asarray, of_x(numbers))
    edges_shape = open_p.shape[1:]
    open_p = open_p.reshape(len(numbers), -1)
    # Edges that are never open need not be enumerated.
    alive = np.flatnonzero(open_p.max(axis=0))
    alive_open = np.array(list(itertools.product([False, True], repeat=len(alive))))
    is_open = np.zeros((len(alive_open), open_p.shape[1]), bool)
    is_open[:, alive] = alive_open
    edges_given_x = np.ones((len(numbers), len(is_open)))
    for e in alive:
        edges_given_x *= np.where(is_open[:, e], open_p[:, e, None], 1 - open_p[:, e, None])

    @jax.jit
    @jax.vmap
    def of_edges(is_open):
        labels = connected_components(ends, is_open, shape)

        def logits(choices):
            logits = cluster_logits(labels, choices, field.weights, field.couplings)
            return jax.nn.log_softmax(logits)

        return labels, jax.vmap(logits)(choices)

    labels, log_probs = map(np.asarray, of_edges(is_open.reshape(-1, *edges_shape)))
    labels = labels.reshape(len(labels), -1)
    flat = numbers.reshape(len(numbers), -1)
    choices = choices.reshape(len(numbers), flat.shape[1], -1)
    matrix = np.zeros((len(numbers), len(numbers)))
    num_choices = 2 if np.any(field.couplings < 0) else choices.shape[-1]
    for b, of_b in enumerate(labels):
        roots = np.unique(of_b)
        # Of each start and each site, which of its choices leads to each value.
        for c in itertools.product(range(num_choices), repeat=len(roots)):
            of_site = np.array(c)[np.searchsorted(roots, of_b)]
            probs = np.exp(log_probs[b][:, roots, list(c)].sum(-1))
            target = np.take_along_axis(choices, of_site[None, :, None], 2)[..., 0]
            to = target @ (len(partners) ** np.arange(flat.shape[1])[::-1])
            np.add.at(matrix, (np.arange(len(flat)), to), edges_given_x[:, b] * probs)
    return matrix


def test_pairings_are_involutions_with_one_state_left_over_at_most():
    partners = jax.vmap(lambda key: random_partners(key, 5))(random.split(random.key(0), 500))
    partners = np.asarray(partners)
    again = np.take_along_axis(partners, partners, 1)
    np.testing.assert_array_equal(again, np.broadcast_to(np.arange(5), again.shape))
    alone = partners == np.arange(5)
    np.testing.assert_array_equal(alone.sum(1), 1)
    assert chisquare(alone.sum(0)).pvalue > 1e-6
    np.testing.assert_array_equal(random_partners(random.key(0), 2), [1, 0])


def case_of(prior, model):
    prior = PRIORS[prior]()
    kernel, site = looked_at(lambda: MODELS[model](prior))
    x = enumerated(site.states, site.event_shape)
    energies = jax.jit(jax.vmap(lambda x: kernel.get_potential_fn((), {})({"x": x})))(x)
    pi = np.exp(jax.nn.log_softmax(-energies))
    return kernel, x, pi, transition_matrix(kernel, site, x)


@pytest.mark.parametrize("prior, model", CASES)
def test_the_transition_matrix_leaves_the_posterior_as_it_is(x64, prior, model):
    _, _, pi, p = case_of(prior, model)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    assert np.max(np.abs(pi @ p - pi)) < 1e-12
    flow = pi[:, None] * p
    assert np.max(np.abs(flow - flow.T)) < 1e-12
    # Pairs of states that are drawn anew each time lead everywhere in a few steps.
    assert np.all(np.linalg.matrix_power(p, 5 if "negative" in prior or "both" in prior else 1) > 0)


@pytest.mark.parametrize("prior", ["ising", "graph"])
def test_draws_are_those_of_the_transition_matrix(x64, prior):
    kernel, x, _, p = case_of(prior, "with data")
    start, num_chains = 11, 10_000
    expected = p[start] * num_chains
    z = {"x": jnp.broadcast_to(x[start], (num_chains, *x[start].shape))}
    drawn = np.asarray(draw(kernel, random.key(1), num_chains, z).z["x"]).reshape(num_chains, -1)
    states = np.unique(x)
    numbers = np.searchsorted(states, drawn) @ len(states) ** np.arange(drawn.shape[1])[::-1]
    counts = np.bincount(numbers, minlength=len(x))
    often = expected > 10
    counts, expected = (np.append(n[often], n[~often].sum()) for n in (counts, expected))
    assert chisquare(counts, expected).pvalue > 1e-6


@pytest.mark.parametrize("kind", ["random", "path", "star"])
def test_clusters_are_those_of_scipy(kind):
    num_sites = 300
    order = RNG.permutation(num_sites)
    edges = {
        "random": RNG.integers(num_sites, size=(400, 2)),
        "path": np.stack([order[:-1], order[1:]], -1),
        "star": np.stack([np.full(num_sites - 1, order[0]), order[1:]], -1),
    }[kind]

    @jax.jit
    def labels_of(is_open):
        def ends(x):
            return x[edges[:, 0]], x[edges[:, 1]]

        return connected_components(ends, is_open, (num_sites,))

    for share in (0.3, 0.9, 1.0):
        is_open = RNG.random(len(edges)) < share
        pairs = edges[is_open]
        graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(num_sites, num_sites))
        num_clusters, expected = scipy_components(graph, directed=False)
        smallest = np.full(num_clusters, num_sites)
        np.minimum.at(smallest, expected, np.arange(num_sites))
        np.testing.assert_array_equal(labels_of(is_open), smallest[expected])


@pytest.mark.parametrize(
    "size, energy", [(8, -1.491589), pytest.param(16, -1.453065, marks=pytest.mark.slow)]
)
def test_the_energy_of_a_critical_torus(size, energy):
    """Kaufman 1949, at the critical coupling."""
    kernel = ns.SwendsenWang(lambda: numpyro.sample("x", ns.Ising((size, size), K_CRITICAL)))

    def step(state, _):
        state = kernel.sample(state, (), {})
        x = 1.0 * state.z["x"]
        neighbors = jnp.roll(x, 1, -1) + jnp.roll(x, 1, -2)
        return state, -jnp.mean(x * neighbors, axis=(-1, -2))

    @jax.jit
    def run(key):
        state = kernel.init(random.split(key, 50), 0, None, (), {})
        return jax.lax.scan(step, state, length=150)[1]

    mean, error = mean_and_error(np.asarray(run(random.key(0)))[30:].T)
    assert error < 0.01
    assert_within(mean, energy, error)


@pytest.mark.slow
def test_lattices_in_a_plate_and_beside_each_other_are_updated_each():
    def model():
        with numpyro.plate("lattices", 2):
            a = numpyro.sample("a", ns.Potts((2, 3), 3, 0.5))
            b = numpyro.sample("b", ns.Ising((2, 3), 0.1))
            numpyro.sample("y", dist.Normal(a, 0.01).to_event(2), obs=TRUTH)
            numpyro.sample("z", dist.Normal(b + a, 0.3).to_event(2), obs=TRUTH - 1.0)

    drawn = draw(ns.SwendsenWang(model, num_steps=20), random.key(0), 5, None).z
    np.testing.assert_array_equal(drawn["a"], np.broadcast_to(TRUTH, (5, 2, 2, 3)))
    np.testing.assert_array_equal(drawn["b"], -1)


@pytest.mark.parametrize(
    "model, message",
    [
        (
            lambda: numpyro.sample(
                "x", ns.PairwiseMRF([[0, 1]], np.ones((1, 2, 2)), DATA.reshape(3, 2))
            ),
            r"one coupling for each edge, of shape \(1,\).*are tables, of shape \(1, 2, 2\)",
        ),
        (lambda: numpyro.sample("x", dist.Bernoulli(0.5)), "site 'x' is of BernoulliProbs"),
        (
            lambda: numpyro.factor("f", numpyro.sample("x", ns.Ising((2, 3), 0.1)).sum() ** 2),
            r"density of \['f'\] is not a sum.*use DiscreteLangevin or GibbsWithGradients",
        ),
        (lambda: numpyro.sample("x", dist.Normal(0, 1)), r"\['x'\] are continuous"),
    ],
)
def test_models_that_do_not_fit(model, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        ns.SwendsenWang(model).init(random.key(0), 0, None, (), {})
