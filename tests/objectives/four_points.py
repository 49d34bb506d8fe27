# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Data of four points, and the mean of a loss over data, noise and time without random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from numpyro_scores.processes import VarianceExploding

PROCESS = VarianceExploding(sigma_min=0.5, sigma_max=5.0)
# The data are these points with equal weights: smoothed, they are a mixture of four Gaussians.
POINTS = np.array([[-2.0], [-1.7], [0.4], [2.5]])


def log_density(x, sigma):
    """The log density of the smoothed data, up to a constant."""
    return jax.nn.logsumexp(-((x[0] - POINTS[:, 0]) ** 2) / (2 * sigma**2))


DIRECTIONS = [
    lambda x, sigma: jnp.ones_like(x),
    lambda x, sigma: x,
    lambda x, sigma: jnp.sin(3 * x) * sigma,
    lambda x, sigma: jnp.tanh(x / sigma),
]


def expectation(loss, monkeypatch):
    """The mean of `loss(x)` over data, noise (trapezoid rule) and time (Gauss-Legendre)."""
    z = np.linspace(-9, 9, 201)
    weight_z = np.exp(-(z**2) / 2)
    u, weight_u = np.polynomial.legendre.leggauss(6)

    def one(x, z, u):
        monkeypatch.setattr(random, "normal", lambda key, shape, dtype: jnp.full(shape, z))
        monkeypatch.setattr(random, "uniform", lambda key: u)
        return loss(x[None])

    over_times = jax.vmap(one, (None, None, 0))
    over_noise = jax.vmap(over_times, (None, 0, None))
    values = jax.vmap(over_noise, (0, None, None))(POINTS, z, (1 + u) / 2)
    return jnp.einsum("xzu,z,u->", values, weight_z / weight_z.sum(), weight_u / 2) / len(POINTS)
