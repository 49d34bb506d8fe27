# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Four numbers with a noise scale that is inferred: model, priors, and the answer by quadrature."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

import numpyro_scores as ns

Y = jnp.array([0.5, -0.3, 1.0, 0.2])
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
PROCESS = ns.VarianceExploding(0.05, 20.0)
VARIANCE = 1 + 0.05**2


def denoise(x, sigma):
    return x / (1 + sigma**2)


DIFFUSION = ns.DiffusionPrior(denoise, PROCESS, 4, sampler=ns.Multistep(16, order=3))
GAUSSIAN = dist.Normal(0, np.sqrt(VARIANCE)).expand([4]).to_event(1)


def funnel(y, prior):
    x = numpyro.sample("x", prior)
    noise = numpyro.sample("noise", dist.HalfNormal(0.5))
    numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)


def exact_noise(power=1.0):
    """Nodes, their cumulated probability, and the log evidence, by quadrature."""
    noise = np.linspace(1e-5, 4, 40_001)
    y, spread = np.asarray(Y, float), noise**2 / power
    # N(y; x, s^2)^power is N(y; x, s^2 / power) and a constant.
    log_density = 2 * (1 - power) * np.log(2 * np.pi * noise**2) - 2 * np.log(power)
    log_density += -0.5 * y @ y / (VARIANCE + spread) - 2 * np.log(2 * np.pi * (VARIANCE + spread))
    log_density += stats.halfnorm.logpdf(noise, scale=0.5)
    weights = np.exp(log_density)
    total = np.trapezoid(weights, noise)
    return noise, np.cumsum(weights) / weights.sum(), np.log(total)
