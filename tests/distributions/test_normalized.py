# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Densities that are normalised: flows of another library, and products of conditional ones."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax import random

import numpyro_scores as ns
from numpyro_scores.distributions import AutoregressivePrior, FlowPrior

pytestmark = pytest.mark.usefixtures("quick_compilation")

flowjax = pytest.importorskip("flowjax")
KEY = random.key(0)


@functools.cache  # flowjax holds functions, which two flows that are made alike do not share
def flow(cond_dim=None):
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow

    base = Normal(jnp.array([0.5, -0.2]), jnp.array([1.5, 0.7]))
    return masked_autoregressive_flow(
        KEY, base_dist=base, cond_dim=cond_dim, flow_layers=1, nn_width=4
    )


def flow_prior():
    return FlowPrior(flow())


def real():
    return AutoregressivePrior(made(3, 2), 3)


def binary():
    return AutoregressivePrior(made(3, 1), 3, dist.BernoulliLogits)


def made(d, num_outputs, factor=1.5):
    network = ns.nn.MADE(d, rngs=nnx.Rngs(0), num_outputs=num_outputs, hidden_features=8)
    return jax.tree.map(lambda x: factor * x + 0.1, network)


def pixel_cnn(shape, num_outputs):
    network = ns.nn.PixelCNN(
        shape, rngs=nnx.Rngs(0), num_outputs=num_outputs, hidden_features=4, num_layers=2
    )
    return jax.tree.map(lambda x: 1.5 * x + 0.1, network)


@pytest.mark.parametrize("make", [flow_prior, real, binary])
def test_it_is_a_distribution_of_numpyro(make):
    ns.testing.check_distribution(make, key=KEY, pickled=False)


@pytest.mark.parametrize("make", [flow_prior, lambda: AutoregressivePrior(made(2, 2, 0.5), 2)])
def test_the_density_is_normalised_on_a_grid(x64, make):
    x, step = np.linspace(-30, 30, 601, retstep=True)
    grid = jnp.stack(jnp.meshgrid(x, x), -1)
    total = jnp.sum(jnp.exp(jax.jit(lambda d, x: d.log_prob(x))(make(), grid))) * step**2
    np.testing.assert_allclose(total, 1, atol=1e-4)


def test_the_probabilities_of_all_states_of_twelve_entries(x64):
    prior = AutoregressivePrior(made(12, 1), 12, dist.BernoulliLogits)
    states = np.array(list(itertools.product([0, 1], repeat=12)), float)
    log_probs = jax.jit(lambda d, x: d.log_prob(x))(prior, states)
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_probs)), 1, atol=1e-6)
    draws = np.asarray(prior.sample(KEY, (4_000,)))
    means = np.exp(log_probs) @ states
    errors = (draws.mean(0) - means) / np.sqrt(means * (1 - means) / 4_000)
    assert np.abs(errors).max() < 4
    pairs = np.exp(log_probs) @ (states[:, 3] * states[:, 9])
    assert abs(np.mean(draws[:, 3] * draws[:, 9]) - pairs) < 4 * np.sqrt(pairs / 4_000)


def test_an_output_sees_the_entries_before_it_and_no_others(x64):
    for network in (made((2, 3), 2), pixel_cnn((3, 3), 2), pixel_cnn((2, 2, 2), 1)):
        size = math.prod(network.event_shape)
        x = np.random.default_rng(0).normal(size=network.event_shape)
        jacobian = jax.jit(jax.jacfwd(network))(x).reshape(size, -1, size)
        seen = np.any(np.abs(np.asarray(jacobian)) > 1e-9, axis=1)
        np.testing.assert_array_equal(seen, np.tri(size, k=-1, dtype=bool))


def test_the_probabilities_of_all_pictures_of_three_by_three(x64):
    prior = AutoregressivePrior(pixel_cnn((3, 3), 1), (3, 3), dist.BernoulliLogits)
    states = np.array(list(itertools.product([0, 1], repeat=9)), float).reshape(-1, 3, 3)
    probs = np.exp(jax.jit(lambda d, x: d.log_prob(x))(prior, states))
    np.testing.assert_allclose(probs.sum(), 1, atol=1e-6)
    draws = np.asarray(prior.sample(KEY, (1_000,)))
    for statistic in (lambda x: x[:, 1, 2] * x[:, 2, 0], lambda x: x[:, 0, 2] * x[:, 1, 0]):
        mean = probs @ statistic(states)
        error = np.mean(statistic(draws)) - mean
        assert abs(error) < 4 * np.sqrt(mean * (1 - mean) / 1_000)


def categorical(*logits):
    return dist.Categorical(logits=jnp.stack(logits, -1))


def test_the_probabilities_of_labels_and_of_what_is_none():
    prior = AutoregressivePrior(made(2, 3), 2, categorical)
    labels = jnp.array(list(itertools.product(range(3), repeat=2)))
    np.testing.assert_allclose(jnp.sum(jnp.exp(prior.log_prob(labels))), 1, atol=1e-5)
    assert jnp.all(jnp.isfinite(prior.log_prob(prior.sample(KEY, (4,)))))
    outside = jnp.array([[0, 3], [-1, 0], [0, 0.5]])
    assert jnp.all(prior.log_prob(outside) == -jnp.inf)
    assert not prior.has_rsample


def chain(weights, x):
    return jnp.stack([jnp.stack([weights[0], weights[1] * x[0]]), jnp.zeros(2)], -1)


def test_draws_of_normal_entries_are_differentiable():
    def second(weights):
        prior = AutoregressivePrior(jax.tree_util.Partial(chain, weights), 2)
        assert prior.has_rsample
        return prior.sample(KEY)[1]

    # x_1 = b (a + z_0) + z_1
    x = AutoregressivePrior(jax.tree_util.Partial(chain, jnp.array([0.4, 3.0])), 2).sample(KEY)
    gradient = jax.grad(second)(jnp.array([0.4, 3.0]))
    np.testing.assert_allclose(gradient, [3.0, x[0]], rtol=1e-5)


def test_a_model_that_is_traced_makes_its_prior_anew():
    network, x = made(3, 2), jnp.array([0.3, -1.0, 0.5])

    @jax.jit
    def of_model(x, shift):
        # A closure hides what is not yet known of a network, which is then taken as it is.
        priors = (
            AutoregressivePrior(network, 3),
            AutoregressivePrior(lambda x: network(x) + shift, 3),
        )
        return [prior.log_prob(x) for prior in priors]

    np.testing.assert_allclose(of_model(x, 0.0), real().log_prob(x), rtol=1e-5)
    with pytest.raises(ValueError, match="is not autoregressive"):
        jax.jit(lambda x: AutoregressivePrior(lambda x: jnp.stack([x, x], -1), 3).log_prob(x))(x)


def test_draws_of_a_flow_are_those_of_its_density(x64):
    prior = flow_prior()
    draws = prior.sample(KEY, (2_000,))
    score = jax.jit(jax.vmap(jax.grad(prior.log_prob)))(draws)
    # Stein's identities.
    products = draws[:, :, None] * score[:, None, :]
    errors = (products.mean(0) + jnp.eye(2)) / (products.std(0) / 2_000**0.5)
    assert np.abs(errors).max() < 4 and prior.has_rsample


def test_a_flow_with_a_condition_and_in_a_plate():
    conditional = flow(cond_dim=1)
    prior = FlowPrior(conditional, condition=[0.7])

    def model():
        with numpyro.plate("copies", 3):
            numpyro.sample("x", prior)

    x = jnp.array([[0.3, -0.2], [1.0, 0.0], [0.1, 0.5]])
    found = numpyro.infer.util.log_density(model, (), {}, {"x": x})[0]
    np.testing.assert_allclose(found, jnp.sum(conditional.log_prob(x, jnp.array([0.7]))), rtol=1e-5)
    assert prior.sample(KEY, (4,)).shape == (4, 2)


def test_any_normalised_density_will_do():
    prior = FlowPrior(dist.Gamma(2.0, jnp.ones(2)).to_event(1))
    np.testing.assert_allclose(prior.log_prob(jnp.array([1.0, 2.0])), -3 + np.log(2), rtol=1e-5)
    assert prior.support(jnp.array([1.0, 2.0])) and not prior.support(jnp.array([1.0, -2.0]))
    # Draws of the first are differentiable in its parameters, those of the second are not.
    angle = FlowPrior(dist.VonMises(0.0, 1.0))
    assert prior.has_rsample and not angle.has_rsample
    with pytest.raises(NotImplementedError):
        angle.rsample(KEY)


def test_words_for_what_is_no_normalised_density():
    with pytest.raises(TypeError, match=r"log_prob\(x\), sample.*has no log_prob and no sample"):
        FlowPrior(jnp.sum)
    with pytest.raises(ValueError, match=r"has the batch shape \(2,\)"):
        FlowPrior(dist.Normal(jnp.zeros(2)))
    with pytest.raises(ValueError, match=r"condition of shape \(1,\), got none"):
        FlowPrior(flow(cond_dim=1))
    with pytest.raises(ValueError, match="is not autoregressive: its output for one of the first"):
        AutoregressivePrior(lambda x: jnp.stack([x, x], -1), 3)
    with pytest.raises(ValueError, match="support of an entry must not depend on its parameters"):
        AutoregressivePrior(lambda x: jnp.zeros((3, 1)), 3, lambda low: dist.Uniform(low, 9.0))
    with pytest.raises(ValueError, match=r"shape \(3, 'k'\), got shape \(3,\)"):
        AutoregressivePrior(lambda x: x, 3)
    with pytest.raises(ValueError, match="needs a random key, got None"):
        real().sample(None)
    with pytest.raises(ValueError, match=r"write jax.random.key\(3\)"):
        flow_prior().sample(3)
    with pytest.raises(TypeError, match="of which network has 1 .*missing 1 required positional"):
        AutoregressivePrior(made(3, 1), 3)
    with pytest.raises(TypeError, match="network has 2 .* made "):
        AutoregressivePrior(made(3, 2), 3, jnp.add)
    with pytest.raises(ValueError, match="integer or a sequence of them, got 3.0"):
        AutoregressivePrior(made(3, 2), 3.0)
