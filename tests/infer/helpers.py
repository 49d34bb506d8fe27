# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the tests of the kernels share: many chains at once, and honest comparisons."""

import itertools

import jax
import numpy as np
from jax import random


def draw(kernel, key, num_chains, z=None, *model_args, num_warmup=0):
    """The states of `num_chains` chains after one draw each, from unconstrained values `z`."""
    state = kernel.init(random.split(key, num_chains), num_warmup, z, model_args, {})
    return jax.jit(lambda state, *args: kernel.sample(state, args, {}))(state, *model_args)


def assert_within(value, expected, standard_error, num_errors=4.0):
    """`value` is `expected`, within `num_errors` of its standard errors."""
    z = (np.asarray(value) - expected) / standard_error
    assert np.all(np.abs(z) < num_errors), f"{value} for {expected}: {z} standard errors off"


def mean_and_error(draws):
    """The mean of independent chains, shape `(num_chains, num_draws, ...)`, and its error."""
    means = np.mean(draws, axis=1, dtype=np.float64)
    return means.mean(axis=0), means.std(axis=0, ddof=1) / np.sqrt(len(means))


def assert_no_rejection(pvalues, level=1e-6):
    """No hypothesis of the family `{name: p-value}` is rejected by Holm's procedure."""
    for k, (name, pvalue) in enumerate(sorted(pvalues.items(), key=lambda item: item[1])):
        assert pvalue * (len(pvalues) - k) > level, f"{name}: p = {pvalue:.1e} in {pvalues}"


def whitened(draws, mean, covariance):
    """Draws, shape `(n, d)`, in units where `N(mean, covariance)` is standard normal."""
    return np.linalg.solve(np.linalg.cholesky(covariance), (np.asarray(draws) - mean).T).T


def enumerated(states, shape):
    """All values of a site whose elements have these states, shape `(num_values, *shape)`."""
    values = itertools.product(states, repeat=int(np.prod(shape)))
    return np.array(list(values), np.int8).reshape(-1, *shape)
