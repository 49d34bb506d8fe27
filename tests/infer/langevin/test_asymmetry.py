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
from numpyro_scores.infer.langevin.asymmetry import loop_residual, proposals

pytestmark = pytest.mark.usefixtures("quick_compilation")


def turned(angular_velocity, x):
    """The score of a standard normal and a rotation: asymmetry w / sqrt(1 + w^2), anywhere."""
    return -x + angular_velocity * jnp.array([-x[1], x[0]])


def model(angular_velocity=0.8):
    """The likelihood has a Hessian too, and a symmetric one: it says nothing of the score."""
    prior = ns.ScoreDistribution(jax.tree_util.Partial(turned, angular_velocity), 2)
    x = numpyro.sample("x", prior.expand([3]).to_event(1))
    v = numpyro.sample("v", ns.ScoreDistribution(jnp.negative, 1))
    numpyro.sample("y", dist.Normal(x.sum() + v, 5.0), obs=1.0)


def told(kernel, *args, key=None):
    with warnings.catch_warnings(record=True, action="always") as caught:
        kernel.init(random.key(0) if key is None else key, 0, None, args, {})
    return [str(w.message) for w in caught if issubclass(w.category, UserWarning)]


@pytest.mark.parametrize("key", [random.key(0), random.split(random.key(0), 3)], ids=["one", "all"])
def test_the_site_the_number_and_the_ways_out(key):
    (message,) = told(ns.MALA(model), key=key)
    assert message.startswith("The score of site 'x' is not a gradient")
    assert f"is {0.8 / np.sqrt(1 + 0.8**2):.2g} of the whole" in message
    assert "round a triangle of a point and two proposals is " in message
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
        (ns.MALA, 0.02),  # below the threshold
        (partial(ns.MALA, step_size=1e-3), 0.8),  # of which so short steps feel nothing
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


def test_the_integral_round_a_triangle_of_a_rotation():
    """By Stokes, twice the angular velocity times the area; a gradient has none."""
    a, b, c = np.random.default_rng(0).normal(size=(3, 50, 2))
    (p, q), (r, s) = (b - a).T, (c - a).T
    expected = np.sqrt(np.mean((0.3 * (p * s - q * r)) ** 2))
    residual = loop_residual(jax.tree_util.Partial(turned, 0.3), a, b, c)
    np.testing.assert_allclose(residual, expected, rtol=1e-5)
    assert loop_residual(jax.tree_util.Partial(jnp.sin), a, b, c) < 1e-6


@pytest.mark.parametrize(
    "make, deviation",
    [(partial(ns.MALA, step_size=0.08), 0.4), (partial(ns.MALT, step_size=0.4), 0.4)],
    ids=["mala", "malt"],
)
@pytest.mark.parametrize("num_chains", [None, 3_000])
def test_the_triangles_are_those_of_the_noise_of_a_step(make, deviation, num_chains):
    def normal():
        numpyro.sample("x", dist.Normal().expand([2 if num_chains else 6_000]).to_event(1))

    kernel = make(normal)
    key = random.key(0) if num_chains is None else random.split(random.key(0), num_chains)
    state = kernel.init(key, 0, None, (), {})
    moves = [np.asarray(z["x"] - state.z["x"]) for z in proposals(state, kernel._noise_scale)]
    for move in moves:
        np.testing.assert_allclose(move.std(), deviation, rtol=0.05)
    assert abs(np.corrcoef(moves[0].ravel(), moves[1].ravel())[0, 1]) < 0.06
