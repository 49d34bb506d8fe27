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
from scipy.special import logsumexp, softmax

import numpyro_scores as ns
from numpyro_scores.objectives import NoiseContrastiveEstimation

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
rng = np.random.default_rng(0)
ZERO = jnp.zeros(())
WEIGHTS, VISIBLE, HIDDEN = rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=2)
FIELD = rng.normal(size=3)
PAIRS, FIELDS = rng.normal(size=(2, 3, 3)), rng.normal(size=(3, 3))
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


# The distribution, draws of it or None where its points can be counted, and noise.
DISTRIBUTIONS = {
    "energy": lambda: (
        ns.EnergyDistribution(lambda x: jnp.sum(x**2) / 2, 2, log_normalizer=ZERO),
        random.normal(KEY, (4000, 2)),
        NORMAL,
    ),
    "product": lambda: (
        ns.ProductOfExperts(
            [dist.Normal(jnp.zeros(2), 2**0.5).to_event(1)] * 2, log_normalizer=ZERO
        ),
        random.normal(KEY, (4000, 2)),
        NORMAL,
    ),
    "ising": lambda: (
        ns.Ising((2, 2), 0.4, 0.2, log_normalizer=ZERO),
        None,
        Uniform((-1, 1), (2, 2)),
    ),
    "potts": lambda: (
        ns.Potts((2, 2), 3, 0.7, FIELD, log_normalizer=ZERO),
        None,
        Uniform((0, 1, 2), (2, 2)),
    ),
    "field": lambda: (
        ns.PairwiseMRF(
            [(0, 1), (1, 2)],
            PAIRS,
            FIELDS,
            3,
            log_normalizer=ZERO,
        ),
        None,
        Uniform((0, 1, 2), (3,)),
    ),
    "rbm": lambda: (
        ns.BernoulliRBM(WEIGHTS, VISIBLE, HIDDEN, log_normalizer=ZERO),
        None,
        dist.Bernoulli(probs=0.5 * jnp.ones(3)).to_event(1),
    ),
    "both sides": lambda: (
        ns.BernoulliRBM(WEIGHTS, VISIBLE, HIDDEN, log_normalizer=ZERO).joint(),
        None,
        dist.Bernoulli(probs=0.5 * jnp.ones(5)).to_event(1),
    ),
    "continuous rbm": lambda: (
        mixture_rbm(),
        mixture_draws(mixture_rbm(), 4000),
        NORMAL,
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


def all_points(d):
    """Of a discrete distribution; else the middles of small squares, and the logarithm of one."""
    if d.is_discrete:
        states = [s for s in range(-1, 4) if np.all(d.support(np.full(d.event_shape, s)))]
        x = jnp.array(list(itertools.product(states, repeat=int(np.prod(d.event_shape)))), float)
        return x.reshape(-1, *d.event_shape), 0.0
    axis = np.linspace(-8, 8, 201)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    return x, 2 * np.log(axis[1] - axis[0])


def log_mass(d):
    x, log_size = all_points(d)
    return logsumexp(np.asarray(log_prob(d, x), float)) + log_size


log_prob = jax.jit(lambda d, x: d.log_prob(x))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_what_fit_returns_is_normalised(name):
    d, data, noise = DISTRIBUTIONS[name]()
    if data is None:
        x, _ = all_points(d)
        p = softmax(np.asarray(log_prob(d, x), float))
        data = np.asarray(x)[np.random.default_rng(0).choice(len(x), 4000, p=p)]
    fitted = ns.fit(
        d,
        NoiseContrastiveEstimation(noise, 4),
        data,
        key=KEY,
        num_steps=500,
        batch_size=400,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.08, 500)),
        ema_decay=0.95,
        progress_bar=False,
    ).module
    assert abs(log_mass(d)) > 0.5
    np.testing.assert_allclose(log_mass(fitted), 0, atol=0.1)


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
    np.testing.assert_allclose(fitted.log_prob(x), right, atol=0.2)
