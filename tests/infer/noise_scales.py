# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A noise scale that is inferred together with standard normals: model, data, and the answer."""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

import numpyro_scores as ns

PROCESS = ns.VarianceExploding(0.02, 20.0)


def denoise_standard(x, sigma):
    return x / (1 + sigma**2)


def noise_model(y):
    d = y.shape[-1]
    prior = ns.DiffusionPrior(denoise_standard, PROCESS, d)
    x = numpyro.sample("x", prior)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x, noise).expand(y.shape).to_event(2), obs=y)


def two_looks(d, noise):
    """Each entry of x, standard normal, is measured twice."""
    rng = np.random.default_rng(1)
    return rng.normal(size=d) + noise * rng.normal(size=(2, d))


def exact_noise(y):
    """Posterior mean and standard deviation of the noise scale, by quadrature."""
    noise = np.linspace(0.01, 5, 5_000)
    half_sum, half_difference = y.sum(axis=0) / 2, (y[0] - y[1]) / 2
    log_density = stats.halfnorm.logpdf(noise)
    log_density += stats.norm.logpdf(half_difference[:, None], 0, noise / np.sqrt(2)).sum(axis=0)
    log_density += stats.norm.logpdf(half_sum[:, None], 0, np.sqrt(1 + noise**2 / 2)).sum(axis=0)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = weights @ noise
    return mean, np.sqrt(weights @ (noise - mean) ** 2)
