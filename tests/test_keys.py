# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What is a random key, and what is told of everything else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import numpyro_scores as ns
from numpyro_scores import diagnostics
from numpyro_scores._validation import check_key


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("make", [random.key, random.PRNGKey])
def test_typed_and_raw_keys_of_every_implementation_pass(make, implementation):
    with jax.default_prng_impl(implementation):
        key = make(3)
        assert check_key("fit", key) is key
        jax.jit(lambda key: check_key("fit", key))(key)
        jax.vmap(lambda key: check_key("fit", key))(random.split(key, 2))
        check_key("fit", np.asarray(random.key_data(key)))


@pytest.mark.parametrize(
    "key, words",
    [
        (3, r"fit needs a random key, got the integer 3: write jax.random.key\(3\)"),
        (np.int64(3), r"the integer 3: write jax.random.key\(3\)"),
        (None, r"got None. Make one with jax.random.key\(0\)"),
        ("seed", "got 'seed'"),
        (True, "got True"),
        (jnp.array(3), r"got int32 of shape \(\)"),
        (jnp.zeros(2), r"got float32 of shape \(2,\)"),
        (random.split(random.key(0), 5), r"one random key, got 5 of them, shape \(5,\).*keys\[0\]"),
        (random.split(random.PRNGKey(0), 5), r"got uint32 of shape \(5, 2\)"),
    ],
)
def test_what_is_no_key_is_told(key, words):
    with pytest.raises(ValueError, match=words):
        check_key("fit", key)


X = np.random.default_rng(0).normal(size=(8, 2))


@pytest.mark.parametrize(
    "name, args",
    [
        ("classifier_two_sample_test", (X, X)),
        ("coverage", (X[:, None], X)),
        ("diagnose", (None,)),
        ("energy_distance", (X, X)),
        ("finite_set_stein_discrepancy", (X, jnp.negative)),
        ("kernel_stein_discrepancy", (X, jnp.negative)),
        ("mean_test", (X, X)),
        ("missed_modes", (None,)),
        ("mmd_test", (X, X)),
        ("sliced_wasserstein", (X, X)),
        ("tarp", (X[:, None], X)),
        ("variance_test", (X, X)),
    ],
)
def test_a_number_is_no_key_of_a_diagnostic(name, args):
    with pytest.raises(ValueError, match=rf"{name} needs a random key, got the integer 3"):
        getattr(diagnostics, name, getattr(ns, name, None))(*args, key=3)
