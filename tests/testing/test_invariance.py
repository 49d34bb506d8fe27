# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The tests of invariance: right kernels pass, wrong ones fail, with the probability promised."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from testing.kernels import Langevin, exact_draw

import numpyro_scores as ns
from numpyro_scores.testing.invariance import _in_rounds

pytestmark = pytest.mark.usefixtures("quick_compilation")


def check(fault, **settings):
    return ns.testing.check_invariance(Langevin(fault), exact_draw, key=random.key(0), **settings)


def test_a_right_kernel_passes():
    found = check(None)
    assert 1 <= len(found.p_values) <= 3 and found.p_values[-1] > 0.1


@pytest.mark.parametrize(
    "fault, words",
    [
        ("no Hastings correction", r"mean of \['.*'\].* is off by -?\d+\.\d standard errors"),
        ("not finite", "left the finite numbers in 1000 of 1000 chains"),
    ],
)
def test_a_wrong_kernel_fails(fault, words):
    with pytest.raises(AssertionError, match=words):
        check(fault)


def test_functions_of_the_users_own_are_compared():
    found = check(None, test_functions=lambda z: {"mean": jnp.mean(z["x"]), "wide": z["x"] > 0})
    assert found.largest[0] in ("['mean']", "['wide'][0]", "['wide'][1]")


def model():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 0.5))


def test_a_posterior_that_is_not_known():
    """The same dynamics with and without a Metropolis test."""
    settings = dict(observed=["y"], key=random.key(1), num_chains=300)
    ns.testing.check_joint_invariance(
        model,
        lambda model: ns.MALA(model, step_size=0.2, adapt_step_size=False, num_steps=1),
        **settings,
    )
    with pytest.raises(AssertionError, match=r"mean of \['"):
        ns.testing.check_joint_invariance(
            model, lambda model: ns.ULA(model, step_size=0.2, num_steps=1), **settings
        )


def test_a_right_kernel_fails_as_often_as_is_said():
    """Uniform p-values, in rounds: the probability is the level itself."""
    rng, level, n = np.random.default_rng(0), 0.2, 4_000
    failed, sizes = 0, set()
    for _ in range(n):

        def test(key, size):
            sizes.add(size)
            return rng.uniform(), ["x"], np.ones(1)

        try:
            _in_rounds(test, random.key(0), 10, level, 4, "It")
        except AssertionError:
            failed += 1
    assert abs(failed / n - level) < 4 * np.sqrt(level * (1 - level) / n)
    assert sizes == {10, 40}


def test_what_is_no_number_is_told():
    with pytest.raises(ValueError, match="level must be a probability"):
        check(None, level=2.0)
    with pytest.raises(ValueError, match="num_steps must be a positive integer"):
        check(None, num_steps=0)
