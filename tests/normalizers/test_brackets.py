# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How often a bracket holds the exact value, for machines with a published normaliser."""

import jax
import numpy as np
import pytest
from jax import random

import numpyro_scores as ns


def published(num_hidden):
    rng = np.random.default_rng(0)
    weights = rng.normal(0, np.sqrt(0.05), (num_hidden, 100))
    return ns.BernoulliRBM(weights.T, rng.normal(size=100), rng.normal(size=num_hidden))


PUBLISHED = {10: 93.933389420, 16: 94.503757545}


def brackets(d, method, num_runs):
    run = jax.jit(jax.vmap(lambda key: ns.log_normalizer(d, key=key, method=method)))
    found = [run(random.split(random.key(i), 10)) for i in range(num_runs // 10)]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_the_bracket_holds_the_exact_value():
    found = brackets(published(10), ns.AnnealedImportanceSampling(num_levels=50), 10)
    assert np.all((found.lower < PUBLISHED[10]) & (PUBLISHED[10] < found.upper))
    assert np.all(np.abs(found.estimate - PUBLISHED[10]) < 4.5 * found.standard_error)
    assert np.mean(found.upper - found.lower) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("num_hidden, log_z", PUBLISHED.items())
def test_the_default_bracket_holds_the_exact_value_in_nearly_all_runs(num_hidden, log_z):
    found = brackets(published(num_hidden), ns.AnnealedImportanceSampling(), 100)
    assert np.sum((found.lower <= log_z) & (log_z <= found.upper)) >= 95
    assert np.mean(found.upper - found.lower) < 0.1
    z = (found.estimate - log_z) / found.standard_error
    assert abs(np.mean(z)) < 0.5 and 0.7 < np.std(z) < 1.4
