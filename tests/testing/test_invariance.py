# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The tests of invariance: right kernels pass, wrong ones fail, with the probability promised."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from testing.kernels import Langevin, exact_draw

import numpyro_scores as ns
from numpyro_scores.testing.invariance import _flip_test, _in_rounds

pytestmark = pytest.mark.usefixtures("quick_compilation")


def check(fault, **settings):
    settings = dict(key=random.key(0), num_chains=400) | settings
    return ns.testing.check_invariance(Langevin(fault), exact_draw, **settings)


def test_a_right_kernel_passes():
    found = check(None)
    assert 1 <= len(found.p_values) <= 3 and found.p_values[-1] > 0.1


@pytest.mark.parametrize(
    "fault, words",
    [
        ("no Hastings correction", r"mean of \['.*'\].* is off by -?\d+\.\d standard errors"),
        ("not finite", "left the finite numbers in 400 of 400 chains"),
    ],
)
def test_a_wrong_kernel_fails(fault, words):
    with pytest.raises(AssertionError, match=words):
        check(fault)


def test_functions_of_the_users_own_are_compared():
    found = check(None, test_functions=lambda z: {"mean": jnp.mean(z["x"]), "wide": z["x"] > 0})
    assert found.largest[0] in ("['mean']", "['wide'][0]", "['wide'][1]")


def test_a_right_kernel_fails_as_often_as_is_said():
    """Uniform p-values, in rounds: the probability is the level itself."""
    rng, level, n = np.random.default_rng(0), 0.2, 1_000
    failed, sizes = 0, set()
    for _ in range(n):

        def test(key, size):
            sizes.add(size)
            return rng.uniform(), np.ones(1), ["x"]

        try:
            _in_rounds(test, random.key(0), 10, level, 4, "It")
        except AssertionError:
            failed += 1
    assert abs(failed / n - level) < 4 * np.sqrt(level * (1 - level) / n)
    assert sizes == {10, 40}


def test_the_p_value_is_that_of_all_choices_of_signs():
    differences = np.random.default_rng(1).normal(0.4, 1.0, (10, 2)).astype(np.float32)
    signs = np.array(list(itertools.product([-1, 1], repeat=10)))
    t = np.abs(signs @ (differences / np.linalg.norm(differences, axis=0))).max(axis=1)
    exact = np.mean(t >= t[-1] - 1e-6)
    found, of_each = _flip_test(differences, random.key(0), 9_999)
    assert 0.01 < exact < 0.5
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 9_999)
    np.testing.assert_allclose(np.max(np.abs(of_each)), t[-1], rtol=1e-5)


def test_what_is_no_number_is_told():
    with pytest.raises(ValueError, match="level must be a probability"):
        check(None, level=2.0)
    with pytest.raises(ValueError, match="num_steps must be a positive integer"):
        check(None, num_steps=0)
