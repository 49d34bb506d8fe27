# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Who makes a Metropolis test with a score that is not a gradient is told, and nobody else."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import Gibbs

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def turned(angular_velocity, x):
    """The score of a standard normal and a rotation: asymmetry w / sqrt(1 + w^2), anywhere."""
    return -x + angular_velocity * jnp.array([-x[1], x[0]])


def model(angular_velocity=0.1):
    """The likelihood's Hessian is large, and symmetric: it must not hide the rotation."""
    prior = ns.ScoreDistribution(jax.tree_util.Partial(turned, angular_velocity), 2)
    x = numpyro.sample("x", prior.expand([3]).to_event(1))
    v = numpyro.sample("v", ns.ScoreDistribution(jnp.negative, 1))
    numpyro.sample("y", dist.Normal(x.sum() + v, 0.01), obs=1.0)


def told(kernel, *args, key=None):
    with warnings.catch_warnings(record=True, action="always") as caught:
        kernel.init(random.key(0) if key is None else key, 0, None, args, {})
    return [str(w.message) for w in caught if issubclass(w.category, UserWarning)]


@pytest.mark.parametrize("key", [random.key(0), random.split(random.key(0), 3)], ids=["one", "all"])
def test_the_site_the_number_and_the_ways_out(key):
    (message,) = told(ns.MALA(model), key=key)
    assert message.startswith("The score of site 'x' is not a gradient")
    assert f"is {0.1 / np.sqrt(1 + 0.1**2):.2g} of the whole" in message
    assert "MALA accepts" in message and "EnergyDistribution" in message and "ULA" in message


@pytest.mark.slow
def test_a_block_of_gibbs_speaks_of_its_own_sites():
    blocks = [(ns.MALA(model), ["x"]), (ns.MALA(model), ["v"])]
    (message,) = told(Gibbs(blocks))
    assert "site 'x'" in message


@pytest.mark.parametrize(
    "make, angular_velocity",
    [
        (ns.MALA, 0.0),
        (ns.MALA, 0.005),  # below the threshold
        (ns.ULA, 0.5),
    ],
)
def test_silence(make, angular_velocity):
    assert not told(make(partial(model, angular_velocity)))


def test_under_a_transformation_there_is_nothing_to_look_at():
    kernel = ns.MALA(model)
    with warnings.catch_warnings(action="error"):
        keys = random.split(random.key(0))
        jax.vmap(lambda key: kernel.init(key, 0, None, (), {}))(keys)
        jax.jit(lambda w: ns.MALA(model).init(keys[0], 0, None, (w,), {}))(0.5)
