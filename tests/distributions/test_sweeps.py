# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The random numbers of Gibbs sweeps, and that sweeps drawn together are sweeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy.stats import kstest

import numpyro_scores as ns
from numpyro_scores.distributions.boltzmann import sweeps
from numpyro_scores.distributions.boltzmann.sweeps import gibbs_sweeps, uniforms

KEY = random.key(0)


@pytest.mark.parametrize("key", [KEY, random.PRNGKey(3), random.key(1, impl="rbg")])
def test_uniform_numbers(key):
    u = np.asarray(uniforms(key, (101, 301), jnp.float32), float)
    assert u.min() >= 0 and u.max() < 1
    flat = u.ravel()
    assert kstest(flat, "uniform").pvalue > 1e-3
    half = len(flat) // 2
    for lag in (1, 2, 301, half):  # the two words of a counter are half the array apart
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 4 / np.sqrt(len(flat) - lag)


def test_of_double_precision_they_are_those_of_jax(x64):
    np.testing.assert_array_equal(
        uniforms(KEY, (5,), jnp.float64), random.uniform(KEY, (5,), jnp.float64)
    )


@pytest.mark.slow
def test_rounds_of_sweeps_have_the_law_of_the_lattice(monkeypatch):
    """Thirty-one sweeps in rounds of two, of 20,000 chains; moments of the sum by enumeration."""
    d = ns.Ising((2, 4), 0.4, field=0.1)
    monkeypatch.setattr(sweeps, "LARGEST_AT_ONCE", 16)

    @jax.jit
    @jax.vmap
    def ends(key):
        blocks = tuple(x.astype(float) for x in d.split(jnp.ones((2, 4))))
        return d.join(gibbs_sweeps(d._conditional, key, blocks, 31))

    x = np.asarray(ends(random.split(KEY, 20_000)))
    states = 2.0 * (np.arange(256)[:, None] >> np.arange(8) & 1) - 1
    log_weights = jax.vmap(lambda s: d._log_weight(s.reshape(2, 4)))(jnp.asarray(states))
    p = np.asarray(jax.nn.softmax(log_weights), float)
    exact = p @ states.sum(axis=1), p @ states.sum(axis=1) ** 2
    total = x.reshape(len(x), -1).sum(axis=1)
    for values, mean in zip((total, total**2), exact, strict=True):
        assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(len(values))
