# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The variational energy: its value and gradients for normal densities, which are known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax import random
from jax.tree_util import Partial

import numpyro_scores as ns
from numpyro_scores.objectives import VariationalEnergy, VariationalPair

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
X = np.random.default_rng(0).normal(size=(50, 1)) + 0.5
NODES = np.array([[-1.0], [1.0]])  # mean 0 and variance 1, as of all draws


@jax.tree_util.register_pytree_node_class
class Normal:
    """Its draws are the nodes: the moments of a quadratic energy are exact."""

    def __init__(self, location, scale):
        self.location, self.scale = location, scale

    def sample(self, key, shape):
        return self.location + self.scale * jnp.tile(NODES, (shape[0] // 2, 1))

    def log_prob(self, x):
        z = (x[..., 0] - self.location) / self.scale
        return -(z**2) / 2 - jnp.log(self.scale) - np.log(2 * np.pi) / 2

    def tree_flatten(self):
        return (self.location, self.scale), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def quadratic(precision, x):
    return jnp.sum(precision * x**2) / 2


def loss(precision, location, scale):
    pair = VariationalPair(Partial(quadratic, precision), Normal(location, scale))
    return VariationalEnergy()(pair, X, key=KEY)


def test_the_value_is_the_negative_log_likelihood_where_the_sampler_is_the_density(x64):
    found = loss(4.0, 0.0, 0.5)
    np.testing.assert_allclose(found, 2 * np.mean(X**2) + np.log(0.5 * np.sqrt(2 * np.pi)))
    assert loss(4.0, 0.3, 0.5) < found and loss(4.0, 0.0, 0.6) < found


def test_the_energy_descends_the_contrast_and_the_sampler_its_free_energy(x64):
    precision, location, scale = 4.0, 0.3, 0.7
    of_energy, of_location, of_scale = jax.grad(loss, (0, 1, 2))(precision, location, scale)
    np.testing.assert_allclose(of_energy, (np.mean(X**2) - location**2 - scale**2) / 2)
    # The free energy: precision (location^2 + scale^2) / 2 - log scale.
    np.testing.assert_allclose(of_location, precision * location)
    np.testing.assert_allclose(of_scale, precision * scale - 1 / scale)


def test_a_lattice_with_a_bound_of_its_normaliser(x64):
    x = np.where(np.random.default_rng(0).normal(size=(20, 2, 3)) > 0.3, 1.0, -1.0)
    objective = VariationalEnergy(normalizer=ns.TreeReweightedBound(num_steps=50))

    def of_coupling(coupling):
        return objective(ns.Ising((2, 3), coupling, 0.2, periodic=False), x, key=KEY)

    def likelihood(coupling):
        d = ns.Ising((2, 3), coupling, 0.2, periodic=False)
        return ns.log_normalizer(d).estimate - jnp.mean(d.log_prob(x))

    value, slope = jax.jit(jax.value_and_grad(of_coupling))(0.3)
    exact, exact_slope = jax.jit(jax.value_and_grad(likelihood))(0.3)
    assert exact < value < exact + 0.1 and abs(slope - exact_slope) < 0.5


def test_words_for_a_module_without_a_sampler():
    with pytest.raises(ValueError, match="has no energy and no sampler.*give a VariationalPair"):
        VariationalEnergy()(Partial(quadratic, 1.0), X, key=KEY)
    frozen = ns.distributions.FlowPrior(dist.VonMises(jnp.zeros(1), 1.0).to_event(1))
    with pytest.raises(ValueError, match="draws that are not differentiable .has_rsample is False"):
        VariationalEnergy()(VariationalPair(Partial(quadratic, 1.0), frozen), X, key=KEY)
    with pytest.raises(ValueError, match="num_draws must be a positive integer"):
        VariationalEnergy(num_draws=0)


def test_fit_finds_the_density_of_the_data():
    pair = VariationalPair(
        Partial(quadratic, jnp.array(1.0)), Normal(jnp.array(0.0), jnp.array(1.0))
    )
    x = 0.5 * random.normal(KEY, (2_000, 1))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 400))
    fitted = ns.fit(
        pair, VariationalEnergy(), x, key=KEY, optimizer=optimizer, num_steps=400,
        progress_bar=False,
    ).module  # fmt: skip
    variance = jnp.mean(x**2)
    np.testing.assert_allclose(fitted.sampler.scale**2, variance, rtol=0.1)
    # The energy at a point, which is half of the precision.
    np.testing.assert_allclose(2 * fitted(jnp.ones(1)), 1 / variance, rtol=0.1)
