# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""GibbsWithGradients and DiscreteLangevin: differences, proposals and transition matrices."""

import itertools
from functools import cache, partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import draw, enumerated
from jax import random
from numpyro import handlers
from scipy.stats import chisquare

import numpyro_scores as ns

# What takes time is to compile.
pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
FIELD, DATA = RNG.normal(size=(2, 4)), RNG.normal(size=(2, 4))
TABLES, FIELDS = RNG.normal(size=(3, 3, 3)), RNG.normal(size=(4, 3))
BLUR, WEIGHTS = RNG.normal(size=(3, 8)) / 2, RNG.normal(size=(4, 3))
NOISE = 0.8


def spins():
    x = numpyro.sample("x", ns.Ising((2, 4), 0.4, FIELD))
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(2), obs=DATA)


def blurred():
    x = numpyro.sample("x", ns.Ising((2, 4), 0.4, FIELD))
    numpyro.sample("y", dist.Normal(BLUR @ x.reshape(-1), NOISE).to_event(1), obs=jnp.ones(3))
    numpyro.sample("z", dist.Poisson(jnp.exp(0.3 * x)).to_event(2), obs=jnp.ones((2, 4)))


def graph():
    x = numpyro.sample("x", ns.PairwiseMRF([[0, 1], [2, 1], [2, 3]], TABLES, FIELDS, 3))
    with handlers.scale(scale=0.3):
        numpyro.sample("y", dist.Normal(x, NOISE).mask(DATA[0] > 0).to_event(1), obs=DATA[0])


def grades():
    """States that a joint log density takes as numbers."""
    with numpyro.plate("pixels", 4):
        x = numpyro.sample("x", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
    numpyro.factor("smooth", -0.4 * jnp.sum((x[1:] - x[:-1]) ** 2))


def visible():
    """A density of its own that joins the elements."""
    numpyro.sample("x", ns.BernoulliRBM(WEIGHTS, jnp.ones(4), -jnp.ones(3)))


def machine():
    rbm = ns.BernoulliRBM(WEIGHTS, jnp.ones(4), -jnp.ones(3))
    v, h = rbm.joint().split(numpyro.sample("x", rbm.joint()))
    numpyro.sample("y", dist.Bernoulli(0.2 + 0.6 * v).to_event(1), obs=jnp.array([1, 0, 1, 1]))


# The states of an element, and the shape of the site.
MODELS = {
    "spins": (spins, (-1, 1), (2, 4)),
    "blurred": (blurred, (-1, 1), (2, 4)),
    "graph": (graph, (0, 1, 2), (4,)),
    "grades": (grades, (0, 1, 2), (4,)),
    "machine": (machine, (0, 1), (7,)),
    "visible": (visible, (0, 1), (4,)),
}
KERNELS = {
    "GibbsWithGradients": partial(ns.GibbsWithGradients, num_steps=1),
    "DiscreteLangevin": partial(ns.DiscreteLangevin, num_steps=1, step_size=0.4),
}
of_both = pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
of_models = pytest.mark.parametrize("model, states, shape", MODELS.values(), ids=MODELS)


@cache
def plan_of(model):
    kernel = ns.GibbsWithGradients(model)
    kernel.look((), {})
    return kernel._planned


def prepared(kernel):
    """The points of a kernel as a function of x, and what it adapts."""
    kernel._planned = plan_of(kernel.model)
    trace_at = kernel._trace_at((), {})
    points = jax.jit(lambda x: kernel._points({"x": x}, trace_at)({"x": x}))
    return points, kernel._first_adapt_state()


def log_posterior(kernel, x):
    energies = jax.jit(jax.vmap(lambda x: kernel.get_potential_fn((), {})({"x": x})))(x)
    return np.asarray(jax.nn.log_softmax(-energies))


@of_models
def test_differences_are_those_of_changing_one_element(x64, model, states, shape):
    kernel = ns.GibbsWithGradients(model)
    point, _ = prepared(kernel)
    x = RNG.choice(states, size=shape).astype(np.int8)
    found = np.asarray(point(x).differences["x"])

    potential_energy = jax.jit(kernel.get_potential_fn((), {}))
    for k, (c, index) in enumerate(itertools.product(states, np.ndindex(*shape))):
        y = x.copy()
        y[index] = c
        expected = float(potential_energy({"x": x}) - potential_energy({"x": y}))
        if model is blurred:  # of a Gaussian a first order misses the square
            shift = BLUR[:, np.ravel_multi_index(index, shape)] * (c - x[index])
            expected += np.sum(shift**2) / (2 * NOISE**2)
        if model is grades:  # and so of every square of a difference of neighbours
            num_neighbors = 1 if index[0] in (0, 3) else 2
            expected += 0.4 * num_neighbors * float(c - x[index]) ** 2
        if model is visible:  # and what the gradient of the free energy does not tell
            gradient = jax.grad(lambda x: potential_energy({"x": x}))(x.astype(float))
            expected = -float(gradient[index]) * (c - x[index])
        assert abs(found[(k // x.size, *index)] - expected) < 1e-10, (c, index)


def transition_matrix(kernel, x):
    """Of all points `x`, by the functions that the kernel proposes and accepts with."""
    point, adapt_state = prepared(kernel)
    points = jax.jit(jax.vmap(point))(x)

    def log_probs(a):
        def of_pair(b):
            log_proposal = kernel._log_proposal(b.z, a, adapt_state)
            return log_proposal, kernel._log_ratio(a, b, adapt_state)

        return jax.vmap(of_pair)(points)

    log_proposal, log_ratio = map(np.asarray, jax.jit(jax.vmap(log_probs))(points))
    num_changes = (x[:, None] != x).reshape(len(x), len(x), -1).sum(-1)
    proposal = np.exp(log_proposal)
    if isinstance(kernel, ns.GibbsWithGradients):
        proposal = np.where(num_changes == 1, proposal, 0.0)
    np.testing.assert_allclose(proposal.sum(axis=1), 1.0, rtol=1e-12)
    p = proposal * np.minimum(1.0, np.exp(log_ratio)) if kernel._adjusted else proposal
    p[np.diag_indices_from(p)] += 1 - p.sum(axis=1)
    return p


@of_models
@of_both
def test_the_transition_matrix_leaves_the_posterior_as_it_is(x64, make, model, states, shape):
    kernel = make(model)
    x = enumerated(states, shape)
    p = transition_matrix(kernel, x)
    pi = np.exp(log_posterior(kernel, x))
    assert np.all(p > -1e-12)
    assert np.max(np.abs(pi @ p - pi)) < 1e-12
    flow = pi[:, None] * p
    assert np.max(np.abs(flow - flow.T)) < 1e-12


@pytest.mark.parametrize("model", [blurred, graph])
@pytest.mark.parametrize(
    "make",
    [*KERNELS.values(), partial(ns.DiscreteLangevin, num_steps=1, adjusted=False, step_size=0.4)],
    ids=[*KERNELS, "unadjusted"],
)
def test_draws_are_those_of_the_transition_matrix(x64, make, model):
    kernel = make(model)
    _, states, shape = MODELS[model.__name__]
    x = enumerated(states, shape)
    start = 70
    num_chains = 10_000
    expected = transition_matrix(kernel, x)[start] * num_chains
    z = {"x": jnp.broadcast_to(x[start], (num_chains, *shape))}
    drawn = np.asarray(draw(kernel, random.key(1), num_chains, z).z["x"])
    base = len(states) ** np.arange(x[0].size)[::-1]
    numbers = np.searchsorted(states, drawn.reshape(num_chains, -1)) @ base
    counts = np.bincount(numbers, minlength=len(x))
    assert np.all(counts[expected < 1e-9] == 0)
    often = expected > 10
    rest = counts[~often].sum(), expected[~often].sum()
    counts, expected = counts[often], expected[often]
    if rest[1] > 0:
        counts, expected = np.append(counts, rest[0]), np.append(expected, rest[1])
    assert chisquare(counts, expected).pvalue > 1e-6


def test_the_bias_of_the_unadjusted_form_vanishes_as_its_moves_do(x64):
    """The distance to the posterior falls in proportion to the odds of a change, e^{-1 / (4h)}."""
    x = enumerated((-1, 1), (2, 4))
    distances = []
    for odds in (1e-3, 1e-4):
        h = float(-1 / (4 * np.log(odds)))
        kernel = ns.DiscreteLangevin(spins, adjusted=False, step_size=h)
        p = transition_matrix(kernel, x)
        equations = np.vstack([p.T - np.eye(len(x)), np.ones(len(x))])
        stationary = np.linalg.lstsq(equations, np.append(np.zeros(len(x)), 1.0))[0]
        distances.append(np.abs(stationary - np.exp(log_posterior(kernel, x))).sum() / 2)
    assert distances[0] < 0.01
    np.testing.assert_allclose(distances[0] / distances[1], 10.0, rtol=0.05)


@pytest.mark.slow
def test_of_labels_any_change_counts_one_and_of_numbers_their_distance():
    def labels():
        with numpyro.plate("pixels", 2):
            numpyro.sample("x", dist.Categorical(jnp.ones(3) / 3))

    def numbers():
        with numpyro.plate("pixels", 2):
            x = numpyro.sample("x", dist.Categorical(jnp.ones(3) / 3))
        numpyro.factor("joint", 1e-9 * x[0] * x[1])

    for model, distances in [(labels, [0, 1, 1]), (numbers, [0, 1, 4])]:
        kernel = ns.DiscreteLangevin(model, step_size=0.25)
        point, adapt_state = prepared(kernel)
        at_zero = point(jnp.zeros(2, int))
        (site,) = kernel._found.plan
        found = jax.jit(kernel._log_probs, static_argnums=0)(site, at_zero, adapt_state)
        np.testing.assert_allclose(found[:, 0] - found[0, 0], -np.array(distances), atol=1e-5)


def test_of_numbers_a_first_order_is_trusted_near_by():
    """The square of the distance counts, above that of the next state; of two nothing does."""
    h = 0.5
    kernel = ns.GibbsWithGradients(grades, step_size=h)
    point, adapt_state = prepared(kernel)
    at_zero = point(jnp.zeros(4, int))
    found = jax.jit(kernel._log_probs)(at_zero, adapt_state)["x"]
    trusted = found - at_zero.differences["x"] / 2
    np.testing.assert_allclose(trusted[2] - trusted[1], -(2**2 - 1) / (4 * h), atol=1e-5)
    np.testing.assert_allclose(trusted[1] - trusted[1, 0], 0, atol=1e-5)
    _, of_two_states = prepared(ns.GibbsWithGradients(blurred))
    assert of_two_states == ()


@pytest.mark.slow
def test_several_sites_depend_on_each_other(x64):
    """A table of one is that of the present values of the other, as is a gradient."""

    def model():
        with numpyro.plate("pixels", 3):
            a = numpyro.sample("a", dist.Bernoulli(0.4))
            b = numpyro.sample("b", dist.Bernoulli(jax.nn.sigmoid(0.5 * a)))
        locations = jnp.array([-0.5, 1.5])[b]  # while `a` is a number
        numpyro.sample("y", dist.Normal(jnp.sum(a) + locations, 1.0).to_event(1), obs=jnp.ones(3))

    both = list(itertools.product(enumerated((0, 1), (3,)), enumerated((0, 1), (3,))))
    z = jax.tree.map(lambda *x: jnp.stack(x), *({"a": a, "b": b} for a, b in both))
    for make in KERNELS.values():
        kernel = make(model)
        kernel._planned = plan_of(model)
        trace_at = kernel._trace_at((), {})
        points = jax.jit(jax.vmap(kernel._points(jax.tree.map(itemgetter(0), z), trace_at)))(z)
        energies = jax.jit(jax.vmap(kernel.get_potential_fn((), {})))(z)
        np.testing.assert_allclose(points.potential_energy, energies, rtol=1e-12)
        for i in range(3):
            up = z | {"b": z["b"].at[:, i].set(1)}
            gain = energies - jax.vmap(kernel.get_potential_fn((), {}))(up)
            np.testing.assert_allclose(points.differences["b"][:, 1, i], gain, atol=1e-12)
        adapt = kernel._first_adapt_state()
        to_all = jax.vmap(kernel._log_proposal, in_axes=(0, None, None))
        q = np.exp(jax.jit(jax.vmap(to_all, in_axes=(None, 0, None)))(z, points, adapt))
        changes = [[np.sum(a != c) + np.sum(b != d) for c, d in both] for a, b in both]
        if make is KERNELS["GibbsWithGradients"]:
            q = np.where(np.array(changes) == 1, q, 0.0)
        np.testing.assert_allclose(q.sum(1), 1.0, rtol=1e-12)
        pi = np.exp(jax.nn.log_softmax(-points.potential_energy))
        flow = pi[:, None] * q
        p = np.minimum(flow, flow.T)
        ratio = jax.jit(jax.vmap(jax.vmap(kernel._log_ratio, (None, 0, None)), (0, None, None)))
        accepted = flow * np.minimum(1, np.exp(ratio(points, points, adapt)))
        np.testing.assert_allclose(np.where(q > 0, accepted, 0), p, atol=1e-14)
