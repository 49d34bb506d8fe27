# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Quantiles and evidences of many runs on a funnel, in a program that is optimised."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer.smc.funnels import DIFFUSION, GAUSSIAN, LEVELS, Y, exact_noise, funnel
from jax import lax, random

import numpyro_scores as ns


@pytest.mark.slow
@pytest.mark.parametrize("prior", [GAUSSIAN, DIFFUSION], ids=["density", "diffusion"])
def test_quantiles_and_evidences_of_many_runs_on_the_funnel(prior):
    def one(key):
        smc = ns.TemperedSMC(funnel, progress_bar=False)
        smc.run(key, Y, prior)
        noise = smc.get_samples()["noise"]
        return (
            jnp.quantile(noise, jnp.array(LEVELS)),
            smc.log_evidence,
            smc.log_evidence_error,
        )

    # One after the other: in a batch each run would repeat its steps as often as the slowest.
    keys = random.split(random.key(5), 20)
    found, values, errors = jax.jit(partial(lax.map, one))(keys)
    nodes, cumulated, log_evidence = exact_noise()
    exact = np.interp(LEVELS, cumulated, nodes)
    standard_error = np.std(found, axis=0, ddof=1) / np.sqrt(20)
    np.testing.assert_array_less(np.abs(np.mean(found, axis=0) - exact), 3 * standard_error)
    assert np.sum(np.abs(values - log_evidence) < 3 * errors) >= 19
    assert np.std(values) < 0.1
