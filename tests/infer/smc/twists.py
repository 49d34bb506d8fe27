# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A linear model with a diffusion prior, and what its data say of a point with noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random

import numpyro_scores as ns
from numpyro_scores.infer.smc.level_moves import twisted
from numpyro_scores.infer.smc.twist import DiffusionTwist

NOISE = 0.3
PROCESS = ns.VarianceExploding(sigma_min=0.02, sigma_max=50.0)
OPERATOR = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], np.float32)
Y = jnp.array([1.0, -2.0])


def denoise(x, sigma):
    return x / (1 + sigma**2)


PRIOR = ns.DiffusionPrior(denoise, PROCESS, 3)


def linear(y, level=None):
    x = numpyro.sample("x", PRIOR if level is None else PRIOR.at(level))
    numpyro.sample("y", dist.Normal(OPERATOR @ x, NOISE).to_event(1), obs=y)


def given_noise(x, sigma, level=PROCESS.sigma_min):
    """Mean and variance of the value of noise `level`, given one of noise `sigma`."""
    share = (1 + level**2) / (1 + sigma**2)
    return share * x, share * (sigma**2 - level**2)


@partial(jax.jit, static_argnums=0)
def unmoved(model, x, sigma):
    """A particle before any move of other sites: its energy is minus the log twist."""
    twist = DiffusionTwist(model)
    return twisted(random.key(0), x, twist, sigma, jnp.zeros_like(x), num_moves=0).point
