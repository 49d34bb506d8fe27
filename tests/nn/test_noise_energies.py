# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies of every noise level: normalised at large noise, whatever the weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from numpyro_scores.nn import MLPNoiseEnergy, UNetNoiseEnergy
from numpyro_scores.nn.noise_energies import readout

pytestmark = pytest.mark.usefixtures("quick_compilation")


def perturbed(module):
    """Away from the initial weights."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda w: w + rng.normal(size=w.shape).astype(w.dtype), module)


def test_the_readout_is_that_of_a_preconditioned_output(x64):
    # |x - D|^2 / 2t + |D|^2 / 2s^2 + (d / 2) log 2 pi (s^2 + t) + V, with all its cancellations.
    rng = np.random.default_rng(0)
    x, f, v = rng.normal(size=5), rng.normal(size=5), 0.7
    s, sigma = 1.5, 0.4
    c = s**2 / (s**2 + sigma**2)
    output = c * x + s * sigma / np.hypot(s, sigma) * np.sqrt(c) * f
    expected = np.sum((x - output) ** 2) / (2 * sigma**2) + np.sum(output**2) / (2 * s**2)
    expected += 5 / 2 * np.log(2 * np.pi * (s**2 + sigma**2)) + np.sqrt(c) * v
    np.testing.assert_allclose(readout(x, sigma, s, f, v), expected, rtol=1e-12)


def test_at_large_noise_it_is_a_normalised_gaussian_whatever_the_weights_are():
    s, sigma, d = 0.5, 5e3, 3
    energy = perturbed(MLPNoiseEnergy(d, rngs=nnx.Rngs(0), hidden_features=8, sigma_data=s))
    x = sigma * np.random.default_rng(0).normal(size=(200, d)).astype(np.float32)
    gaussian = -stats.norm.logpdf(x, 0, np.hypot(s, sigma)).sum(-1)
    energies = jax.jit(jax.vmap(energy, (0, None)))
    np.testing.assert_allclose(energies(x, sigma), gaussian, atol=0.02)
    # And the weights do matter where the data are.
    assert np.std(energies(x / np.float32(sigma), 0.1)) > 1


def test_at_the_start_it_is_nearly_the_gaussian_of_the_data_at_every_level():
    energy = MLPNoiseEnergy(4, rngs=nnx.Rngs(0), hidden_features=32, sigma_data=2.0)
    energies = jax.jit(jax.vmap(energy, (0, None)))
    for sigma in (0.01, 1.0, 30.0):
        x = np.float32(np.hypot(2, sigma) * np.random.default_rng(0).normal(size=(64, 4)))
        gaussian = -stats.norm.logpdf(x, 0, np.hypot(2, sigma)).sum(-1)
        np.testing.assert_allclose(energies(x, sigma), gaussian, atol=0.1)


def test_all_outputs_learn_from_the_start():
    """Where F is zero, |F|^2 has no gradient, and would never have one."""
    network = MLPNoiseEnergy(3, rngs=nnx.Rngs(0), hidden_features=8, num_layers=1)
    grads = jax.tree.leaves(nnx.grad(lambda network: network(jnp.ones(3), jnp.array(0.5)))(network))
    (last,) = (grad for grad in grads if grad.shape == (8, 4))
    assert np.all(np.linalg.norm(last, axis=0) > 1e-4)


@pytest.mark.slow
def test_a_label_of_pictures_matters_and_a_wrong_one_is_told():
    module = UNetNoiseEnergy((4, 4), rngs=nnx.Rngs(0), widths=(4,), num_classes=3)
    energy = jax.jit(perturbed(module))
    x = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    any_class, first, second = energy(x, 0.5), energy(x, 0.5, 0), energy(x, 0.5, 1)
    assert len({float(u) for u in (any_class, first, second)}) == 3
    assert any_class.shape == ()
    with pytest.raises(ValueError, match=r"label must be in \[0, 3\), got 3"):
        module(x, 0.5, 3)
    with pytest.raises(ValueError, match="UNetNoiseEnergy has no labels"):
        UNetNoiseEnergy((4, 4), rngs=nnx.Rngs(0), widths=(4,))(x, 0.5, 1)


def test_half_precision_keeps_the_noise_of_small_levels():
    energy = MLPNoiseEnergy(4, rngs=nnx.Rngs(0), hidden_features=8)
    x = jnp.ones(4, jnp.bfloat16)
    assert energy(x, 0.01).dtype == jnp.float32
    np.testing.assert_allclose(energy(x, 0.01), energy(x.astype(float), 0.01), rtol=1e-3)


def test_noise_levels_of_another_shape_are_told():
    with pytest.raises(ValueError, match=r"got a noise level of shape \(2,\). For a batch"):
        MLPNoiseEnergy(4, rngs=nnx.Rngs(0), hidden_features=8)(np.zeros(4), np.ones(2))
