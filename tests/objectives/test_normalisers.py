# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Noise-contrastive estimation learns the normaliser of each distribution that has one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax import random

import numpyro_scores as ns
from numpyro_scores.objectives import NoiseContrastiveEstimation
from numpyro_scores.training._modules import partition

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
rng = np.random.default_rng(0)
ZERO = jnp.zeros(())
WEIGHTS, VISIBLE, HIDDEN = rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=2)
NORMAL = dist.Normal(jnp.zeros(2), 1.5).to_event(1)


def mixture_rbm(weights=0.8, scale=jnp.array([0.5, 1.0]), normalizer=ZERO):
    return ns.GaussianBernoulliRBM(
        weights * jnp.eye(2), jnp.zeros(2), scale, jnp.zeros(2), log_normalizer=normalizer
    )


def mixture_draws(rbm, n):
    """Exact: hidden units with the weights of their Gaussians, and visible ones given these."""
    key_hidden, key_visible = random.split(KEY)
    states = jnp.array(list(itertools.product((0.0, 1.0), repeat=2)))
    weigh = rbm.partition_sum().log_weight
    which = random.categorical(key_hidden, jax.vmap(weigh)(states), shape=(n,))
    return rbm.conditional(hidden=states[which]).sample(key_visible)


# The distribution, draws of it or None for all of its discrete points, noise, and log Z or None.
DISTRIBUTIONS = {
    "energy": lambda: (
        ns.EnergyDistribution(lambda x: jnp.sum(x**2) / 2, 2, log_normalizer=ZERO),
        random.normal(KEY, (4000, 2)),
        NORMAL,
        np.log(2 * np.pi),
    ),
    "product": lambda: (
        ns.ProductOfExperts(
            [dist.Normal(jnp.zeros(2), 2**0.5).to_event(1)] * 2, log_normalizer=ZERO
        ),
        random.normal(KEY, (4000, 2)),
        NORMAL,
        -np.log(4 * np.pi) * 2 + np.log(2 * np.pi),
    ),
    "ising": lambda: (
        ns.Ising((2, 2), 0.4, 0.2, log_normalizer=ZERO),
        None,
        Uniform((-1, 1), (2, 2)),
        None,
    ),
    "potts": lambda: (
        ns.Potts((2, 2), 3, 0.7, rng.normal(size=3), log_normalizer=ZERO),
        None,
        Uniform((0, 1, 2), (2, 2)),
        None,
    ),
    "field": lambda: (
        ns.PairwiseMRF(
            [(0, 1), (1, 2)],
            rng.normal(size=(2, 3, 3)),
            rng.normal(size=(3, 3)),
            3,
            log_normalizer=ZERO,
        ),
        None,
        Uniform((0, 1, 2), (3,)),
        None,
    ),
    "rbm": lambda: (
        ns.BernoulliRBM(WEIGHTS, VISIBLE, HIDDEN, log_normalizer=ZERO),
        None,
        dist.Bernoulli(probs=0.5 * jnp.ones(3)).to_event(1),
        None,
    ),
    "both sides": lambda: (
        ns.BernoulliRBM(WEIGHTS, VISIBLE, HIDDEN, log_normalizer=ZERO).joint(),
        None,
        dist.Bernoulli(probs=0.5 * jnp.ones(5)).to_event(1),
        None,
    ),
    "continuous rbm": lambda: (
        mixture_rbm(),
        mixture_draws(mixture_rbm(), 4000),
        NORMAL,
        None,
    ),
}


class Uniform:
    """Over some states at each site."""

    def __init__(self, states, shape):
        self.states, self.shape = jnp.array(states, float), shape

    def sample(self, key, sample_shape):
        return random.choice(key, self.states, (*sample_shape, *self.shape))

    def log_prob(self, x):
        num_sites = int(np.prod(self.shape))
        return jnp.full(x.shape[: -len(self.shape)], -num_sites * jnp.log(len(self.states)))


def draws_of_all_points(d, n=4000):
    states = [s for s in range(-1, 4) if np.all(d.support(np.full(d.event_shape, s)))]
    x = jnp.array(list(itertools.product(states, repeat=int(np.prod(d.event_shape)))), float)
    x = x.reshape(-1, *d.event_shape)
    return x[random.categorical(KEY, d.log_prob(x), shape=(n,))]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_normaliser_that_fit_trains_goes_to_the_exact_one(name):
    """Newton's method on it alone, from zero, through what `fit` takes for the parameters."""
    d, data, noise, exact = DISTRIBUTIONS[name]()
    data = draws_of_all_points(d) if data is None else data
    if exact is None:
        exact = ns.log_normalizer(d, key=KEY).estimate
    params, merge = partition(d)
    leaves, treedef = jax.tree.flatten(params)
    where = [
        i
        for i in range(len(leaves))
        if merge(treedef.unflatten([x + (i == j) for j, x in enumerate(leaves)])).log_normalizer
        == 1
    ]
    assert where, "fit does not see the normaliser"
    objective = NoiseContrastiveEstimation(noise, 5)

    def loss(constant):
        changed = [constant if i == where[0] else x for i, x in enumerate(leaves)]
        return objective(merge(treedef.unflatten(changed)), data, key=KEY)

    newton = jax.jit(lambda c: c - jnp.clip(jax.grad(loss)(c) / jax.hessian(loss)(c), -1, 1))
    constant = jnp.zeros(())
    for _ in range(12):
        constant = newton(constant)
    np.testing.assert_allclose(constant, exact, atol=0.08)
    assert abs(exact) > 0.3


@pytest.mark.slow
def test_fit_learns_a_continuous_machine_and_its_normaliser():
    truth = mixture_rbm()
    fitted = ns.fit(
        mixture_rbm(0.5, jnp.ones(2)),
        NoiseContrastiveEstimation(NORMAL),
        mixture_draws(truth, 20_000),
        key=KEY,
        num_steps=2_000,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.03, 2_000)),
        progress_bar=False,
    ).module
    exact = ns.log_normalizer(fitted, key=KEY).estimate
    np.testing.assert_allclose(fitted.log_normalizer, exact, atol=0.05)
    # The Gaussians overlap, so that the parameters are less certain than the density.
    x = jnp.array([[0.0, 0.0], [0.8, 0.8], [0.8, -0.5], [-0.5, 1.5]])
    right = truth.log_prob(x) - ns.log_normalizer(truth, key=KEY).estimate
    np.testing.assert_allclose(fitted.log_prob(x), right, atol=0.1)
