# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every network promises: a pytree that crosses JAX's transformations and pickles."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from numpyro_scores.nn import (
    ConvEnergy,
    MLPDenoiser,
    MLPEnergy,
    MLPNoiseEnergy,
    UNetDenoiser,
    UNetNoiseEnergy,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHAPE = (2, 3)
X = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)


def denoiser(seed=0):
    return MLPDenoiser(SHAPE, rngs=nnx.Rngs(seed), hidden_features=8, num_layers=1)


def energy(seed=0):
    return MLPEnergy(SHAPE, rngs=nnx.Rngs(seed), hidden_features=8, num_layers=1)


def unet(seed=0):
    return UNetDenoiser(SHAPE, rngs=nnx.Rngs(seed), widths=(4, 8))


def conv_energy(seed=0):
    return ConvEnergy(SHAPE, rngs=nnx.Rngs(seed), hidden_features=4, num_layers=1)


def noise_energy(seed=0):
    return MLPNoiseEnergy(SHAPE, rngs=nnx.Rngs(seed), hidden_features=8, num_layers=1)


def unet_energy(seed=0):
    return UNetNoiseEnergy(SHAPE, rngs=nnx.Rngs(seed), widths=(4, 8))


def perturbed(module):
    """Away from the initial weights, some of which are zero."""
    rng = np.random.default_rng(0)

    def perturb(leaf):
        return leaf + rng.normal(size=leaf.shape, scale=0.3).astype(leaf.dtype)

    return jax.tree.map(perturb, module)


def call(module, x):
    return module(x) if isinstance(module, MLPEnergy | ConvEnergy) else module(x, 0.7)


called = jax.jit(call)


# The operations of a U-Net, called one by one, compile for long.
NETWORKS = pytest.mark.parametrize(
    "make",
    [
        denoiser,
        energy,
        conv_energy,
        noise_energy,
        pytest.param(unet, marks=pytest.mark.slow),
        pytest.param(unet_energy, marks=pytest.mark.slow),
    ],
)


@NETWORKS
def test_a_second_call_with_other_weights_does_not_trace_again(make):
    traces = []

    @jax.jit
    def compiled(module, x):
        traces.append(module)
        return call(module, x)

    first = make()
    modules = [first, first, make(seed=1), perturbed(first), pickle.loads(pickle.dumps(first))]
    outputs = [compiled(module, X[0]) for module in modules]
    assert len(traces) == 1
    assert np.array_equal(outputs[0], outputs[4])
    assert not np.array_equal(outputs[0], outputs[3])


@NETWORKS
def test_a_pickled_module_is_the_same_function(make):
    module = perturbed(make())
    again = pickle.loads(pickle.dumps(module))
    assert jax.tree.structure(again) == jax.tree.structure(module)
    np.testing.assert_array_equal(called(again, X[0]), called(module, X[0]))


@NETWORKS
def test_the_streams_decide_the_weights(make):
    leaves = [jax.tree.leaves(make(seed)) for seed in (0, 0, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[2], strict=True))


@NETWORKS
def test_vmap_is_a_loop_over_points(make):
    module = perturbed(make())
    batched = jax.jit(jax.vmap(call, (None, 0)))(module, X)
    np.testing.assert_allclose(batched, [called(module, x) for x in X], rtol=2e-4, atol=1e-5)


@NETWORKS
def test_modules_are_mapped_and_differentiated_as_arguments(make):
    module = perturbed(make())
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), module, make(seed=1))
    both = jax.jit(jax.vmap(call, (0, None)))(stacked, X[0])
    np.testing.assert_allclose(both[0], called(module, X[0]), rtol=2e-4, atol=1e-5)

    grad = jax.jit(jax.grad(lambda module: jnp.sum(jnp.sin(call(module, X[0])))))(module)
    # Every weight matters: none of the network hangs in the air.
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(grad))


@NETWORKS
@pytest.mark.parametrize("shape", [(6,), (3, 2), (5, 2, 3), ()])
def test_another_shape_is_told(make, shape):
    with pytest.raises(ValueError, match=r"takes one unbatched point of shape \(2, 3\), got shape"):
        call(make(), np.zeros(shape, np.float32))


@pytest.mark.parametrize("network", [MLPDenoiser, MLPEnergy, MLPNoiseEnergy])
@pytest.mark.parametrize("name", ["hidden_features", "num_layers"])
def test_a_bad_size_is_told(network, name):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer"):
        network(SHAPE, rngs=nnx.Rngs(0), **{name: 0})


@pytest.mark.parametrize("network", [MLPDenoiser, MLPEnergy])
def test_an_integer_event_shape_is_that_of_a_vector(network):
    of_int, of_tuple = (network(shape, rngs=nnx.Rngs(0), num_layers=1) for shape in (6, (6,)))
    assert of_int.event_shape == (6,)
    np.testing.assert_array_equal(called(of_int, X[0].ravel()), called(of_tuple, X[0].ravel()))
    with pytest.raises(ValueError, match="every entry of event_shape must be a positive integer"):
        network((2, 0), rngs=nnx.Rngs(0))
