# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A kernel written by hand passes the contract, and one with any fault fails it, in its words."""

from functools import partial

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import HMC
from testing.kernels import Langevin

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

FAULTS = {
    "ignores the key": "resumed with another key has the same draws",
    "repeats its random numbers": "rng_key of the state is the same after a step",
    "one key for all chains": "chains with chain_method 'sequential', for those vectorized",
    "stands still": "No chain moved in 4 draws",
    "another type": r"\['x'\] is float16\[2\] and was float32\[2\]",
    "Python sees the data": "can't take a step where the arguments of the model are traced",
    "start": "where a chain starts, for init_params",
    "not finite": r"postprocess_fn gives .*(nan|inf)",
    "constrained": "postprocess_fn gives .*nan",
    "pickle": "every second draw of a run and the one resumed",
}


def check(fault, **settings):
    start = {"x": jnp.array([-0.5, 0.3])}
    settings = dict(init_params=start, chain_methods=["sequential"]) | settings
    return ns.testing.check_kernel(
        partial(Langevin, fault), jnp.ones(2), key=random.key(0), **settings
    )


def test_a_right_kernel_passes():
    mcmc = check(None, extra_fields=("accept_prob",))
    assert mcmc.get_samples(True)["x"].shape == (2, 4, 2)
    check(None, init_params=None, chain_methods=[])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_fails(fault):
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check(fault)


def model(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(x, 0.5), obs=y)


@pytest.mark.slow
def test_a_kernel_of_numpyro_passes():
    ns.testing.check_kernel(
        partial(HMC, model, step_size=0.5, trajectory_length=1.0, adapt_step_size=False),
        jnp.array(0.3),
        key=random.key(0),
        chain_methods=[],
    )
