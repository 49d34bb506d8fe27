# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from numpyro_scores.nn import MLPEnergy

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = np.random.default_rng(0).normal(size=(2, 2))


def energy():
    return MLPEnergy((2, 2), rngs=nnx.Rngs(0), hidden_features=16, num_layers=2)


def test_the_energy_is_the_inner_product_of_the_point_and_the_network(x64):
    module = energy()
    first, second, readout = module.layers
    f = readout(jax.nn.silu(second(jax.nn.silu(first(X.ravel())))))
    np.testing.assert_allclose(module(X), np.sum(X.ravel() * f), rtol=1e-12)
    assert module(X).shape == () and module(np.zeros((2, 2))) == 0


def test_its_score_has_a_continuous_derivative(x64):
    # A piecewise linear activation would make the second difference of the score jump.
    module = energy()
    t = np.linspace(-1, 1, 201)
    jacobians = jax.jit(jax.vmap(lambda t: jax.hessian(module)(t * X).reshape(4, 4)))(t)
    np.testing.assert_allclose(jacobians, jnp.swapaxes(jacobians, 1, 2), atol=1e-12)
    assert np.abs(np.diff(jacobians, axis=0)).max() < 0.05 * np.abs(jacobians).max()
    assert np.abs(jacobians[-1] - jacobians[0]).max() > 1e-3
