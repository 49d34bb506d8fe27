# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A mixture in one dimension, where everything is known at every noise level."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from scipy import stats

from numpyro_scores import VarianceExploding

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([-2.0, 0.5, 3.0])
STDS = np.array([0.3, 0.6, 0.4])
PROCESS = VarianceExploding(sigma_min=0.02, sigma_max=500.0)
X = np.linspace(-3.0, 4.0, 8)[:, None]


def log_terms(x, sigma):
    return jnp.log(WEIGHTS) + norm.logpdf(x, MEANS, jnp.sqrt(STDS**2 + sigma**2))


def log_density(x, sigma):
    """Of one point, shape (1,)."""
    return logsumexp(log_terms(x, sigma))


def denoiser(x, sigma):
    """E[x0 | x], by the posterior of the component."""
    wiener = STDS**2 / (STDS**2 + sigma**2)
    posterior = jax.nn.softmax(log_terms(x, sigma))
    return jnp.sum(posterior * (MEANS + wiener * (x - MEANS)), keepdims=True)


@jax.jit
def exact_values(x, sigma):
    """The log density of points, its gradient, and their denoised values."""

    def of_point(x):
        return *jax.value_and_grad(log_density)(x, sigma), denoiser(x, sigma)

    return jax.vmap(of_point)(x)


def cdf(sigma):
    return lambda x: stats.norm.cdf(x[:, None], MEANS, np.hypot(STDS, sigma)) @ WEIGHTS
