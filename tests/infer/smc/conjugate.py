# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A Gaussian posterior, of a prior that is known by its density, its score or its denoiser."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_scores as ns

NOISE, Y = 0.3, jnp.array([1.0, -2.0])


def conjugate(y):
    """x ~ N(0, I), y ~ N(x, NOISE^2)."""
    x = numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.deterministic("total", jnp.sum(x))
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)


def score(x):
    return -x


def denoise(x, sigma):
    return x / (1 + sigma**2)


PROCESS = ns.VarianceExploding(sigma_min=0.01, sigma_max=50.0)
# Made once: a distribution that is made anew is traced anew.
DIFFUSION = ns.DiffusionPrior(denoise, PROCESS, 2)
SCORE = ns.ScoreDistribution(score, 2)


def learned(y, prior):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)


def conjugate_log_evidence(y):
    return float(jnp.sum(dist.Normal(0, np.sqrt(1 + NOISE**2)).log_prob(y)))
