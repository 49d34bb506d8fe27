# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A target of two coordinates in a curved valley, whose moments are known from a grid."""

import jax.numpy as jnp
import numpy as np
from jax import random


def bent(x):
    """Two coordinates that depend on each other, in a curved way."""
    return x[0] ** 2 / 2 + (x[1] - jnp.sin(2 * x[0])) ** 2 + x[0] ** 4 / 40


def _moments(x):
    return [x[0], x[1], x[1] ** 2, x[0] * x[1]]


def moments_on_a_grid():
    x = np.linspace(-6, 6, 400)
    y = np.linspace(-8, 12, 800)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"))
    weight = np.exp(-np.asarray(bent(grid)))
    weight /= weight.sum()
    return [float((weight * f).sum()) for f in _moments(grid)]


def exact_draws(key, num):
    """And the distribution function of the first coordinate; the second is N(sin 2 x, 1/2)."""
    grid = np.linspace(-6, 6, 4_000)
    density = np.exp(-(grid**2) / 2 - grid**4 / 40)
    below = np.cumsum(density) / density.sum()
    key_first, key_second = random.split(key)
    x = jnp.interp(random.uniform(key_first, (num,)), below, grid)
    y = jnp.sin(2 * x) + random.normal(key_second, (num,)) / jnp.sqrt(2)
    return jnp.stack([x, y], axis=1), lambda x: np.interp(x, grid, below)


def assert_right_moments(x):
    """Of chains, shape `(chains, draws, 2)`."""
    for value, exact in zip(_moments(np.moveaxis(x, -1, 0)), moments_on_a_grid(), strict=True):
        means = value.mean(1)
        error = means.std() / np.sqrt(len(means))
        assert error < 0.02 and abs(means.mean() - exact) < 4 * error
