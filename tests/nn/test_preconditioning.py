# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Preconditioning (Karras et al. 2022, table 1 and appendix B.6)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores.nn import Preconditioned
from numpyro_scores.objectives import DenoisingScoreMatching, KarrasWeight

pytestmark = pytest.mark.usefixtures("quick_compilation")

LEVELS = pytest.mark.parametrize("sigma", [0.002, 0.3, 1.7, 80.0])
SIGMA_DATA = 0.5


def coefficients(sigma):
    """`c_skip, c_out, c_in, c_noise`, read off from networks that show them."""
    one = jnp.ones(1)

    def denoise(network):
        return Preconditioned(network, SIGMA_DATA)(one, sigma)[0]

    c_skip = denoise(lambda x, c_noise: 0 * x)
    c_out = denoise(lambda x, c_noise: jnp.ones_like(x)) - c_skip
    c_in = (denoise(lambda x, c_noise: x) - c_skip) / c_out
    c_noise = (denoise(lambda x, c_noise: c_noise * jnp.ones_like(x)) - c_skip) / c_out
    return c_skip, c_out, c_in, c_noise


@LEVELS
def test_input_and_target_of_the_network_have_unit_variance(x64, sigma):
    c_skip, c_out, c_in, c_noise = coefficients(sigma)
    # The clean x0 has the variance sigma_data^2, the noise sigma^2, and they are independent; the
    # target is (x0 - c_skip x) / c_out = ((1 - c_skip) x0 - c_skip noise) / c_out.
    np.testing.assert_allclose(c_in**2 * (SIGMA_DATA**2 + sigma**2), 1, rtol=1e-10)
    target = ((1 - c_skip) * SIGMA_DATA) ** 2 + (c_skip * sigma) ** 2
    np.testing.assert_allclose(target / c_out**2, 1, rtol=1e-6)
    # ... and no other c_skip makes it smaller.
    np.testing.assert_allclose((1 - c_skip) * SIGMA_DATA**2, c_skip * sigma**2, rtol=1e-10)
    np.testing.assert_allclose(c_noise, np.log(sigma) / 4, rtol=1e-6)


@dataclass(frozen=True)
class OneLevel:
    """A process of one noise level."""

    sigma: float

    def noise_level(self, t):
        return jnp.full_like(t, self.sigma)


@LEVELS
def test_karras_weight_makes_the_first_loss_one_at_every_level(x64, monkeypatch, sigma):
    # The loss of a linear denoiser is quadratic: four points stand for x0 and z.
    x0 = np.sqrt(2) * SIGMA_DATA * np.array([[1.0], [-1.0], [0.0], [0.0]])
    z = np.sqrt(2) * np.array([[0.0], [0.0], [1.0], [-1.0]])
    monkeypatch.setattr(random, "normal", lambda key, shape, dtype: jnp.asarray(z))
    objective = DenoisingScoreMatching(OneLevel(sigma), KarrasWeight(SIGMA_DATA))
    untrained = Preconditioned(lambda x, c_noise: 0 * x, SIGMA_DATA)
    loss = jax.jit(lambda x: objective(untrained, x, key=random.key(0)))
    np.testing.assert_allclose(loss(x0), 1, rtol=1e-10)


def test_a_batch_of_noise_levels_is_told():
    module = Preconditioned(lambda x, c_noise: x)
    with pytest.raises(ValueError, match=r"shape \(\), got a noise level of shape \(3,\)"):
        module(jnp.zeros(3), jnp.ones(3))
    levels = jax.vmap(module, (None, 0))(jnp.ones(2), jnp.ones(3))
    assert levels.shape == (3, 2)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan")])
def test_a_bad_standard_deviation_is_told(sigma_data):
    with pytest.raises(ValueError, match="sigma_data must be a finite positive number"):
        Preconditioned(lambda x, c_noise: x, sigma_data)
