# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Metropolis steps after an approximate draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer.smc.test_twisted_energies import at_level, energy, linear
from infer.smc.twists import PRIOR, PROCESS, Y
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.infer.diffusion.corrections import corrected

pytestmark = pytest.mark.usefixtures("quick_compilation")

SCALES = np.array([0.2, 1.0, 1.0])
GROUPS = np.array([1, 0, 0])


def potential(x):
    return jnp.sum((x / SCALES) ** 2) / 2


def test_draws_are_made_exact_and_it_says_by_how_much_they_were_off():
    # Of draws that are c times too wide the log density rises by (c^2 - 1) d / 2 on average.
    c, n = 1.5, 2_000
    x = c * SCALES * random.normal(random.key(0), (n, 3))
    keys = random.split(random.key(1), n)
    found = jax.jit(jax.vmap(lambda key, x: corrected(key, x, potential, GROUPS, 40)))(keys, x)
    np.testing.assert_allclose(np.std(found.x, axis=0) / SCALES, 1, atol=0.07)
    error = 4 * np.std(found.rise) / np.sqrt(n)
    np.testing.assert_allclose(np.mean(found.rise), 1.5 * (c**2 - 1), atol=error)
    assert 0.4 < np.mean(found.accept_prob) < 1


def test_an_anneal_of_too_few_levels_is_corrected_and_diagnose_tells():
    prior = ns.DiffusionPrior(energy, PROCESS, 3)
    kernel = ns.AnnealedLangevin(linear, num_levels=3, num_steps=1, num_corrections=150)
    mcmc = MCMC(
        kernel,
        num_warmup=0,
        num_samples=1,
        num_chains=600,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), Y, prior)
    x = np.asarray(mcmc.get_samples()["x"])
    mean, covariance = at_level(PROCESS.sigma_min)
    np.testing.assert_array_less(
        np.abs(x.mean(axis=0) - mean), 4.5 * np.sqrt(np.diag(covariance) / len(x))
    )
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.25)
    report = ns.diagnose(mcmc)
    (line,) = [line for line in report.lines if line.title == "correction"]
    assert line.status == "fault" and line.faults[0].name == "approximate_draws"


def test_priors_of_denoisers_are_refused():
    for kernel in (ns.AnnealedLangevin, ns.DAPS):
        with pytest.raises(ValueError, match="num_corrections of .* are Metropolis steps"):
            kernel(linear, num_corrections=2).init(random.key(0), 0, None, (Y, PRIOR), {})
