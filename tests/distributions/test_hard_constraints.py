# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Lattices, random fields and machines with states of probability zero, by enumeration."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from infer.helpers import assert_within, draw, enumerated
from jax import random

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

INF = np.inf
PATH = np.array([[0, 1], [1, 2], [2, 3]])
HARD_CORE = np.broadcast_to(np.array([[0.0, 0.0], [0.0, -INF]]), (3, 2, 2))
ORDERED = np.broadcast_to(np.where(np.arange(3)[:, None] > np.arange(3), -INF, 0.2), (3, 3, 3))
CLAMPED = np.array([[INF, 0.3], [-0.2, -INF]])
FORBIDDEN = np.zeros((2, 2, 3))
FORBIDDEN[0, 0, 2] = FORBIDDEN[1, 1, :2] = -INF
WEIGHTS = np.array([[0.5, -1.0], [0.3, 0.8], [-0.6, 0.2]])

# Distributions, with the states of a site and what the log density should be.
CASES = {
    "hard core": (
        lambda: ns.PairwiseMRF(PATH, HARD_CORE, np.zeros((4, 2))),
        (0, 1),
        lambda x: 0.0 if not np.any(x[1:] & x[:-1]) else -INF,
    ),
    "ordered": (
        lambda: ns.PairwiseMRF(PATH, ORDERED, np.zeros((4, 3)), 3),
        (0, 1, 2),
        lambda x: 0.6 if np.all(np.diff(x) >= 0) else -INF,
    ),
    "colouring": (
        lambda: ns.Potts((2, 2), 3, -INF, np.array([0.0, 0.5, -0.3]), periodic=False),
        (0, 1, 2),
        lambda x: (
            np.array([0.0, 0.5, -0.3])[x].sum()
            if np.all(x[0] != x[1]) and np.all(x[:, 0] != x[:, 1])
            else -INF
        ),
    ),
    "forbidden label": (
        lambda: ns.Potts((2, 2), 3, 0.5, FORBIDDEN, periodic=False),
        (0, 1, 2),
        lambda x: (
            0.5 * (np.sum(x[0] == x[1]) + np.sum(x[:, 0] == x[:, 1]))
            if x[0, 0] != 2 and x[1, 1] == 2
            else -INF
        ),
    ),
    "clamped spins": (
        lambda: ns.Ising((2, 2), 0.4, CLAMPED, periodic=False),
        (-1, 1),
        lambda x: (
            0.4 * (np.sum(x[0] * x[1]) + np.sum(x[:, 0] * x[:, 1])) + 0.3 * x[0, 1] - 0.2 * x[1, 0]
            if x[0, 0] == 1 and x[1, 1] == -1
            else -INF
        ),
    ),
    "clamped units": (
        lambda: ns.BernoulliRBM(WEIGHTS, np.array([INF, 0.2, -INF]), np.array([-INF, INF])),
        (0, 1),
        # The second hidden unit is on, the first off.
        lambda x: 0.2 * x[1] + x @ WEIGHTS[:, 1] if x[0] == 1 and x[2] == 0 else -INF,
    ),
    "both sides": (
        lambda: ns.BernoulliRBM(WEIGHTS, np.array([0.1, 0.2, -INF]), np.array([INF, 0.5])).joint(),
        (0, 1),
        lambda x: (
            0.1 * x[0] + 0.2 * x[1] + 0.5 * x[4] + x[:3] @ WEIGHTS @ x[3:]
            if x[2] == 0 and x[3] == 1
            else -INF
        ),
    ),
}
of_all = pytest.mark.parametrize("name", CASES)


def case(name):
    make, states, log_weight = CASES[name]
    d = make()
    values = enumerated(states, d.event_shape)
    log_weights = np.array([log_weight(x.astype(int)) for x in values])
    return d, values, log_weights


@of_all
def test_log_density_and_normaliser(name):
    d, values, log_weights = case(name)
    np.testing.assert_allclose(jax.jit(d.log_prob)(values), log_weights, rtol=1e-12)
    log_z = np.log(np.sum(np.exp(log_weights)))
    exact = [ns.Enumeration()]
    if ns.TransferMatrix().refusal(d) is None:
        exact.append(ns.TransferMatrix())
    for method in exact:
        estimate = jax.value_and_grad(lambda d, m=method: m(d).estimate, allow_int=True)
        found, gradient = jax.jit(estimate)(d)
        np.testing.assert_allclose(found, log_z, rtol=1e-12)
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


@of_all
def test_conditional_distributions_are_those_of_enumeration(name):
    d, values, log_weights = case(name)
    weights = np.exp(log_weights)
    allowed = values[weights > 0]
    found = np.exp(jax.jit(d.site_log_probs)(allowed)).reshape(len(allowed), -1)
    flat = values.reshape(len(values), -1)
    for x, of_x in zip(allowed.reshape(len(allowed), -1), found, strict=True):
        for i in range(len(x)):
            others = np.all(np.delete(flat, i, 1) == np.delete(x, i), axis=1)
            of_state = weights[others & (flat[:, i] == x[i])].sum()
            np.testing.assert_allclose(of_x[i], of_state / weights[others].sum(), rtol=1e-10)


@pytest.mark.parametrize("name, traced", [("hard core", False), *((name, True) for name in CASES)])
def test_a_start_is_allowed(name, traced):
    d, _, _ = case(name)
    if isinstance(d, ns.distributions.BlockDistribution):

        def start(d, key):
            return d.log_prob(d.random_point(key, (50,)))

        run = jax.jit(start) if traced else start
        assert np.all(np.isfinite(run(d, random.key(0))))


def test_a_start_that_is_not_found_is_told():
    """Two colours do not suffice for a triangle."""
    edges = [[0, 1], [1, 2], [2, 0]]
    d = ns.PairwiseMRF(edges, np.full(3, -INF), np.zeros((3, 2)))
    for kernel in (ns.BlockGibbs, ns.SwendsenWang, ns.GibbsWithGradients):
        with pytest.raises(ValueError, match="not finite at the start"):
            kernel(lambda: numpyro.sample("x", d)).init(random.key(0), 0, None, (), {})


RUNS = [
    (ns.BlockGibbs, name) if name in ("hard core", "clamped units") else (ns.BlockGibbs, name)
    for name in CASES
]
RUNS += [(ns.SwendsenWang, name) for name in ("colouring", "forbidden label", "clamped spins")]
RUNS += [(ns.GibbsWithGradients, name) for name in ("hard core", "clamped spins", "both sides")]
RUNS += [(ns.DiscreteLangevin, name) for name in ("hard core", "colouring")]


@pytest.mark.parametrize(
    "kernel, name",
    [
        pytest.param(k, n, marks=() if n in ("hard core", "colouring") else pytest.mark.slow)
        for k, n in RUNS
    ],
)
def test_exact_draws_stay_exact_draws(kernel, name):
    d, values, log_weights = case(name)
    pi = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    start = np.random.default_rng(0).choice(len(values), 20_000, p=pi)
    kernel = kernel(lambda: numpyro.sample("x", d), num_steps=4)
    drawn = draw(kernel, random.key(0), len(start), {"x": jnp.asarray(values[start])}).z["x"]
    number = {x.tobytes(): i for i, x in enumerate(values)}
    drawn = [number[x.tobytes()] for x in np.asarray(drawn)]
    counts = np.bincount(drawn, minlength=len(values))
    assert np.all(counts[pi == 0] == 0)
    assert np.mean(drawn == start) < 0.9
    error = np.sqrt(pi * (1 - pi) / len(start)) + 1e-9
    assert_within(counts / len(start), pi, error, 5.0)


@pytest.mark.slow
@of_all
@pytest.mark.parametrize(
    "method",
    [
        ns.AnnealedImportanceSampling(num_chains=256, num_levels=100),
        ns.ReverseAnnealedImportanceSampling(num_chains=256, num_levels=100),
        ns.ThermodynamicIntegration(num_chains=256, num_levels=64, num_steps=16),
    ],
    ids=["annealed", "reverse", "thermodynamic"],
)
def test_estimates_of_the_normaliser(name, method):
    d, _, log_weights = case(name)
    found = method(d, random.key(0))
    assert found.standard_error < 0.05
    assert_within(found.estimate, np.logaddexp.reduce(log_weights), found.standard_error + 1e-6, 5)


def test_an_estimate_of_the_normaliser_of_a_hard_core_model():
    d, _, log_weights = case("hard core")
    found = ns.AnnealedImportanceSampling(num_chains=64, num_levels=50)(d, random.key(0))
    assert found.standard_error < 0.1
    assert found.lower < np.logaddexp.reduce(log_weights) < found.upper


@pytest.mark.parametrize(
    "make, message",
    [
        (partial(ns.Ising, (2, 2), INF), "coupling must be below infinity"),
        (partial(ns.Ising, (2, 2), -INF), "coupling must be below infinity"),
        (partial(ns.Potts, (2, 2), 3, INF), "coupling must be below infinity"),
        (partial(ns.Potts, (2, 2), 3, 0.1, -FORBIDDEN), "field must be below infinity"),
        (partial(ns.PairwiseMRF, PATH, -HARD_CORE, np.zeros((4, 2))), "couplings must be below"),
        (partial(ns.BernoulliRBM, -INF * np.ones((3, 2)), np.ones(3), np.ones(2)), "weights must"),
    ],
)
def test_infinite_densities_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_base_that_forbids_what_the_distribution_allows_is_refused():
    base = ns.Ising((2, 2), 0.1, CLAMPED)
    method = ns.AnnealedImportanceSampling(num_chains=4, num_levels=4, base=base)
    with pytest.raises(ValueError, match="base must not forbid"):
        method(ns.Ising((2, 2), 0.1, 0.2 * np.ones((2, 2))), random.key(0))
