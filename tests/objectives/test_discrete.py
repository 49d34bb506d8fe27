# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Objectives of discrete points, by enumeration: the expectation over the truth has its minimum there.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import random
from jax.tree_util import Partial
from scipy.special import logsumexp, softmax

import numpyro_scores as ns
from numpyro_scores.objectives import (
    NoiseContrastiveEstimation,
    PseudoLikelihood,
    RatioMatching,
)

pytestmark = pytest.mark.usefixtures("quick_compilation", "x64")

KEY = random.key(0)
NUM_SITES = 2


def points(states, num_sites=NUM_SITES):
    return jnp.array(list(itertools.product(states, repeat=num_sites)), float)


def look_up(table, x):
    return table[tuple(x.astype(int))]


@dataclass
class FixedNoise:
    """Uniform over some states, whose draws are all one given point."""

    num_points: int
    point: Any = field(default_factory=lambda: jnp.zeros(NUM_SITES))

    def sample(self, key, sample_shape):
        return jnp.broadcast_to(self.point, (*sample_shape, NUM_SITES))

    def log_prob(self, x):
        return jnp.full(x.shape[:-1], -jnp.log(self.num_points))


def expected_loss(objective, table, truth):
    """Over points of probabilities `truth`, of the energies in a table of the same shape."""
    num_states = len(table)
    x = points(range(num_states))
    energy = Partial(look_up, table)

    def one(x):
        if objective != "noise contrastive":
            return objective(range(num_states))(energy, x[None])

        def against(y):
            noise = FixedNoise(num_states**NUM_SITES, y)
            return NoiseContrastiveEstimation(noise, 2)(energy, x[None], key=KEY)

        return jnp.mean(jax.vmap(against)(points(range(num_states))))

    return truth.ravel() @ jax.vmap(one)(x)


@pytest.mark.parametrize("num_states", [2, 3, 4])
@pytest.mark.parametrize("objective", [PseudoLikelihood, RatioMatching, "noise contrastive"])
def test_random_tables_are_the_minimum(objective, num_states):
    rng = np.random.default_rng(num_states)
    table = rng.normal(size=(num_states,) * NUM_SITES)
    truth = softmax(-table.ravel())
    # Of the truth, that is: noise-contrastive estimation wants it normalised.
    table = table + logsumexp(-table)

    def loss(table):
        return expected_loss(objective, table, truth)

    def slope(table):
        value, gradient = jax.value_and_grad(loss)(table)
        return gradient, (value, gradient)

    hessian, (value, gradient) = jax.jit(jax.jacfwd(slope, has_aux=True))(table)
    np.testing.assert_allclose(gradient, 0, atol=1e-14)
    slopes = np.linalg.eigvalsh(hessian.reshape(table.size, table.size))
    # The constant is free, except where it is learned; nothing else is.
    assert abs(slopes[0]) < 1e-12 or objective == "noise contrastive"
    assert slopes[1] > 1e-4 and slopes[0] > -1e-12
    others = table + rng.normal(size=(20, *table.shape))
    assert np.all(jax.jit(jax.vmap(loss))(others) > value + 1e-4)


DISTRIBUTIONS = {
    "ising": lambda rng: ns.Ising((2, 2), 0.4, rng.normal(size=(2, 2))),
    "potts of three": lambda rng: ns.Potts((2, 2), 3, 0.7, rng.normal(size=3)),
    "potts of four": lambda rng: ns.Potts((1, 3), 4, -0.4, rng.normal(size=4), periodic=False),
    "field": lambda rng: ns.PairwiseMRF(
        [(0, 1), (1, 2)], rng.normal(size=(2, 3, 3)), rng.normal(size=(3, 3)), 3
    ),
    "rbm": lambda rng: ns.BernoulliRBM(
        rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=2)
    ),
    "both sides": lambda rng: ns.BernoulliRBM(
        rng.normal(size=(2, 2)), rng.normal(size=2), rng.normal(size=2)
    ).joint(),
    "numpyro's": lambda rng: dist.Bernoulli(logits=rng.normal(size=3)).to_event(1),
}


def states_of(d):
    inside = [s for s in range(-1, 5) if np.all(d.support(np.full(d.event_shape, s)))]
    return tuple(inside)


def all_points(d):
    flat = points(states_of(d), int(np.prod(d.event_shape)))
    return flat.reshape(-1, *d.event_shape)


@pytest.mark.parametrize("objective", [PseudoLikelihood(), RatioMatching()])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_truth_is_the_minimum(name, objective):
    d = DISTRIBUTIONS[name](np.random.default_rng(0))
    x = all_points(d)
    weights = softmax(np.asarray(jax.jit(d.log_prob)(x)))

    @jax.jit
    @jax.value_and_grad
    def loss(d):
        return weights @ jax.vmap(lambda x: objective(d, x[None]))(x)

    least, gradient = loss(d)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=1e-13)
    for factor in (0.8, 1.2):
        assert loss(jax.tree.map(lambda leaf, f=factor: f * leaf, d))[0] > least


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_has_the_loss_of_its_energy(name):
    """Blocks of sites, or formulas of their own, and the energies of changed points."""
    d = DISTRIBUTIONS[name](np.random.default_rng(1))
    x, states = all_points(d)[::5], states_of(d)

    @jax.jit
    def losses(d):
        objectives = PseudoLikelihood, RatioMatching
        by_energy = [o(states)(lambda x: -d.log_prob(x), x) for o in objectives]
        return [o()(d, x) for o in objectives], by_energy

    np.testing.assert_allclose(*losses(d), rtol=1e-12)


def test_of_two_states_it_is_the_loss_of_the_paper():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2)))
    x = points((0, 1))
    p = np.exp(-np.asarray(table))
    conditional = p / p.sum(1, keepdims=True), p / p.sum(0, keepdims=True)
    terms = [(1 - c[tuple(x.T.astype(int))]) ** 2 for c in conditional]
    loss = RatioMatching((0, 1))(Partial(look_up, table), x)
    np.testing.assert_allclose(loss, np.mean(sum(terms)), rtol=1e-12)


def test_ratios_of_three_states_by_hand():
    table = jnp.array([0.3, -0.2, 1.0])
    p = np.exp(-np.asarray(table))
    loss = RatioMatching((0, 1, 2))(Partial(look_up, table), jnp.array([[1.0]]))
    np.testing.assert_allclose(
        loss, (p[0] / (p[0] + p[1])) ** 2 + (p[2] / (p[2] + p[1])) ** 2, rtol=1e-12
    )


def test_a_site_without_one_of_the_states_makes_the_loss_infinite_in_a_program():
    for objective in (PseudoLikelihood((-1, 1)), RatioMatching((-1, 1))):
        loss = jax.jit(lambda x, o=objective: o(jnp.sum, x))
        assert np.isfinite(loss(jnp.array([[1.0, -1.0]])))
        assert loss(jnp.array([[1.0, 0.0]])) == jnp.inf
        with pytest.raises(ValueError, match=r"must have the states \(-1, 1\) at its sites, got"):
            objective(jnp.sum, jnp.array([[1.0, 0.0]]))
