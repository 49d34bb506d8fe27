# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Distributions that are known by their energy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from numpyro.distributions import constraints
from numpyro.infer.util import log_density, potential_energy

from numpyro_scores import EnergyDistribution
from numpyro_scores.nn import MLPEnergy

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = np.array([0.3, -1.4, 2.0])
LOG_NORMALIZER = 1.5 * np.log(2 * np.pi)


def standard(x):
    return jnp.sum(x**2) / 2


def test_the_log_density_is_the_negative_energy(x64):
    assert EnergyDistribution(standard, 3).log_prob(X) == -standard(X)


def test_a_normaliser_makes_it_normalised(x64):
    d = EnergyDistribution(standard, 3, log_normalizer=LOG_NORMALIZER)
    expected = dist.Normal().log_prob(X).sum()
    np.testing.assert_allclose(d.log_prob(X), expected, rtol=1e-14)
    np.testing.assert_allclose(d.log_prob(np.stack([X, X])), [expected, expected], rtol=1e-14)


def test_points_are_sequences_of_numbers_too():
    assert EnergyDistribution(standard, 3).log_prob([1, 2, 3]) == -7.0


def test_a_normaliser_that_depends_on_a_latent_scale_counts(x64):
    # Without it the posterior of the scale would be another one.
    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        log_normalizer = 3 * jnp.log(scale) + LOG_NORMALIZER
        energy = EnergyDistribution(
            jax.tree_util.Partial(lambda scale, x: standard(x / scale), scale),
            3,
            log_normalizer=log_normalizer,
        )
        numpyro.sample("x", energy)

    def hand_written(scale, x):
        prior = dist.HalfNormal(2.0).log_prob(scale)
        return prior + dist.Normal(0, scale).log_prob(x).sum()

    def found(scale, x):
        return log_density(model, (), {}, {"scale": scale, "x": x})[0]

    both = jax.jit(jax.value_and_grad(found, argnums=(0, 1)))(0.7, X)
    expected = jax.jit(jax.value_and_grad(hand_written, argnums=(0, 1)))(0.7, X)
    np.testing.assert_allclose(both[0], expected[0], rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), both[1], expected[1])


def test_the_weights_of_a_network_have_gradients():
    def log_prob(network):
        return EnergyDistribution(network, (3,)).log_prob(X)

    network = MLPEnergy((3,), rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    grads = jax.jit(jax.grad(log_prob))(network)
    expected = jax.jit(jax.grad(lambda network: -network(jnp.asarray(X))))(network)
    for found, exact in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-5)


@pytest.mark.parametrize(
    "support, event_shape, event_dim",
    [
        (constraints.positive, (3,), 1),
        (constraints.positive, (), 0),
        (constraints.interval(-1.0, np.array([1.0, 2.0, 3.0])), (2, 3), 2),
        (constraints.simplex, (3,), 1),
        (constraints.simplex, (2, 3), 2),
        (constraints.lower_cholesky, (3, 3), 2),
    ],
)
def test_the_support_is_of_a_point_or_of_each_entry(support, event_shape, event_dim):
    d = EnergyDistribution(standard, event_shape, support=support)
    assert d.support.event_dim == event_dim
    points = np.array(support.feasible_like(jnp.zeros((4, *event_shape))))
    points[(2, *[0] * len(event_shape))] = -7.0  # one bad entry spoils its point
    np.testing.assert_array_equal(d.support(points), [True, True, False, True])


def test_kernels_move_in_the_unconstrained_space_of_the_support(x64):
    def model():
        numpyro.sample("x", EnergyDistribution(jnp.sum, 3, support=constraints.positive))

    found = potential_energy(model, (), {}, {"x": X})
    np.testing.assert_allclose(found, np.sum(np.exp(X) - X), rtol=1e-14)


def test_the_support_crosses_jit_with_its_bounds():
    @jax.jit
    def inside(d, x):
        return d.support(x)

    for upper in (np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])):
        d = EnergyDistribution(standard, 3, support=constraints.interval(0.0, upper))
        assert inside(d, upper)
        assert not inside(d, upper[::-1])
    assert inside._cache_size() == 1


def test_a_support_of_more_axes_is_told():
    with pytest.raises(ValueError, match=r"points with 2 axes, but event_shape \(3,\) has 1"):
        EnergyDistribution(standard, 3, support=constraints.lower_cholesky)


@pytest.mark.parametrize("energy, shape", [(lambda x: x, r"\(3,\)"), (lambda x: x[:1], r"\(1,\)")])
def test_an_energy_that_is_no_scalar_is_told(energy, shape):
    message = rf"energy\(x\) for x of shape \(3,\) must have shape \(\), got {shape}"
    with pytest.raises(ValueError, match=message):
        EnergyDistribution(energy, 3)


def test_an_energy_that_is_no_function_is_told():
    with pytest.raises(TypeError, match="energy must be callable, got float"):
        EnergyDistribution(2.0, 3)


def test_a_normaliser_that_is_no_scalar_is_told():
    with pytest.raises(ValueError, match=r"log_normalizer must .* shape \(\)"):
        EnergyDistribution(standard, 3, log_normalizer=np.zeros(2))
