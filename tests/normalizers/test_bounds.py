# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What random weights say of their mean, by enumeration and repetition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy.special import logsumexp
from scipy.stats import binom

from numpyro_scores.normalizers._bounds import NUM_FRACTIONS, log_mean, log_mean_bound

pytestmark = pytest.mark.usefixtures("quick_compilation")

assert_close = np.testing.assert_allclose


@pytest.mark.parametrize("n, p", [(2, 0.3), (20, 0.03), (100, 0.02)])
@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_the_bound_holds_for_rare_large_weights(x64, n, p, floor):
    """Weights of mean 1 that are `floor` but with probability p, where all is in the rare ones."""
    large = (1 - (1 - p) * floor) / p
    ranks = jnp.arange(n)
    log_weights = jnp.log(jnp.where(ranks < jnp.arange(n + 1)[:, None], large, floor + 1e-9))
    bounds = jax.jit(jax.vmap(lambda w: log_mean_bound(w, 0.1)))(log_weights)
    probabilities = binom.pmf(np.arange(n + 1), n, p)
    assert probabilities @ (np.asarray(bounds) > 1e-6) <= 0.1
    assert np.all(bounds <= logsumexp(log_weights, axis=1) - np.log(n))


def test_the_bound_is_where_the_wealth_refutes(x64):
    log_weights = np.random.default_rng(0).normal(size=50)
    bound = log_mean_bound(jnp.asarray(log_weights) + 3.0, 0.025) - 3.0
    fractions = 0.5 ** np.arange(NUM_FRACTIONS)[:, None]
    wealth = np.prod(1 - fractions + fractions * np.exp(log_weights - bound), 1).mean()
    assert_close(wealth, 1 / 0.025, rtol=1e-6)
    few = log_mean_bound(jnp.zeros(128), 0.025)
    assert -5.8 / 128 < few < -3.7 / 128  # what equal weights allow: Markov for their product


def test_the_standard_error_is_that_of_repeated_estimates():
    log_weights = random.normal(random.key(0), (2000, 128)) / 2
    estimates, standard_errors = jax.vmap(log_mean)(log_weights)
    assert_close(np.std(estimates), np.mean(standard_errors), rtol=0.06)
    assert_close(np.mean(estimates), 1 / 8, atol=4e-3)
