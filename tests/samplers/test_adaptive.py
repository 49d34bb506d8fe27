# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""The probability flow of a Gaussian by adaptive steps, whose exact map is known."""

import sys
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import numpyro_scores as ns
from numpyro_scores.samplers import AdaptiveFlow

pytestmark = pytest.mark.usefixtures("quick_compilation")

VARIANCES = np.array([0.04, 0.25, 4.0])
PROCESS = ns.VarianceExploding(0.02, 50.0)


def wiener(x, sigma):
    variances = jnp.asarray(VARIANCES)  # of the precision of the test
    return variances / (variances + sigma**2) * x


@lru_cache
def draws_at_levels(tolerance):
    """Of the same key at any level, which is traced: one program."""
    prior = ns.DiffusionPrior(wiener, PROCESS, 3)
    sampler = AdaptiveFlow(tolerance, tolerance)
    return jax.jit(lambda sigma: prior.at(sigma).sample(random.key(0), (4,), sampler=sampler))


@pytest.mark.parametrize("sigma", [0.02, 3.0, 50.0])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-7])
def test_draws_of_a_gaussian_are_as_near_as_asked(x64, sigma, tolerance):
    start = ns.DiffusionPrior(wiener, PROCESS, 3).at(50.0).sample(random.key(0), (4,))
    scale = np.sqrt((VARIANCES + sigma**2) / (VARIANCES + 50.0**2))
    # At the largest level there is nothing to integrate.
    found = draws_at_levels(tolerance)(sigma)
    np.testing.assert_allclose(found, scale * start, rtol=30 * tolerance, atol=30 * tolerance)


def test_a_prior_whose_own_sampler_is_adaptive_is_drawn_in_a_plate():
    prior = ns.DiffusionPrior(wiener, PROCESS, 3, sampler=AdaptiveFlow())
    x = jax.jit(prior.expand((2,)).sample)(random.key(1))
    assert x.shape == (2, 3) and np.all(np.isfinite(x))


def test_too_few_steps_and_a_missing_package_are_told(monkeypatch):
    prior = ns.DiffusionPrior(wiener, PROCESS, 3)
    with pytest.raises(RuntimeError, match="maximum number of solver steps"):
        prior.sample(random.key(0), (), AdaptiveFlow(max_steps=2))
    with pytest.raises(ValueError, match="rtol must be a finite positive number"):
        AdaptiveFlow(rtol=0.0)
    with pytest.raises(TypeError, match="goes step by step, such as Ancestral"):
        ns.DiffusionPosteriorSampling(lambda: None, sampler=AdaptiveFlow())
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match="AdaptiveFlow needs Diffrax .*Heun for draws"):
        prior.sample(random.key(0), (), AdaptiveFlow())
