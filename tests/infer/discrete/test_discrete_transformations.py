# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Discrete kernels inside of programs: replica exchange, many data sets at once, calibration."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, draw, enumerated
from jax import lax, random
from numpyro.infer import MCMC, NUTS, Gibbs
from scipy.special import softmax

import numpyro_scores as ns
from numpyro_scores._compile import _program
from numpyro_scores.diagnostics import geweke_test, simulation_based_calibration

pytestmark = pytest.mark.usefixtures("quick_compilation")

Y = np.array([[0.5, -1.0], [2.0, 0.3]])
KERNELS = {
    "BlockGibbs": ns.BlockGibbs,
    "SwendsenWang": ns.SwendsenWang,
    "GibbsWithGradients": partial(ns.GibbsWithGradients, num_steps=8),
    "DiscreteLangevin": partial(ns.DiscreteLangevin, num_steps=8),
}


def noisy(y=Y, coupling=-0.8):
    x = numpyro.sample("x", ns.Ising((2, 2), coupling, 0.2, periodic=False))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)


def exact(kernel, *args):
    x = enumerated((-1, 1), (2, 2))
    energy = np.asarray(jax.jit(jax.vmap(kernel.get_potential_fn(args, {})))({"x": x}))
    return x, softmax(-energy)


@pytest.mark.parametrize(
    "name", [k if k == "BlockGibbs" else pytest.param(k, marks=pytest.mark.slow) for k in KERNELS]
)
def test_replica_exchange_has_the_posterior(name):
    kernel = ns.ReplicaExchange(KERNELS[name](noisy), ns.InverseTemperatures([1.0, 0.6, 0.3]))
    state = kernel.init(random.split(random.key(0), 4000), 0, None, (), {})

    @jax.jit
    def run(state):
        return lax.scan(lambda s, _: (kernel.sample(s, (), {}), None), state, length=25)[0]

    drawn = np.asarray(run(state).z["x"], float)
    x, pi = exact(KERNELS[name](noisy))
    flat, values = drawn.reshape(-1, 4), x.reshape(-1, 4)
    pairs = np.triu_indices(4, 1)
    products = flat[:, pairs[0]] * flat[:, pairs[1]]
    expected = pi @ (values[:, pairs[0]] * values[:, pairs[1]])
    assert_within(products.mean(0), expected, products.std(0) / np.sqrt(len(drawn)), 4.5)
    assert_within(flat.mean(0), pi @ values, flat.std(0) / np.sqrt(len(drawn)), 4.5)


@pytest.mark.slow
def test_many_data_sets_at_once_after_a_look_at_one():
    kernel = ns.BlockGibbs(noisy, num_steps=10)
    data = np.stack([Y, -2 * Y]).astype(np.float32)

    def last(y, key):
        state = kernel.init(key, 0, None, (y,), {})
        return kernel.sample(state, (y,), {}).z["x"]

    run = jax.jit(jax.vmap(jax.vmap(last, (None, 0)), (0, None)))
    keys = random.split(random.key(0), 3000)
    with pytest.raises(ValueError, match=r"(?s)arguments are traced.*kernel\.look"):
        run(data, keys)
    kernel.look((data[0],), {})
    drawn = np.asarray(run(data, keys), float)
    for y, draws in zip(data, drawn, strict=True):
        x, pi = exact(kernel, y)
        assert_within(draws.mean(0), np.tensordot(pi, x, 1), draws.std(0) / 3000**0.5 + 1e-9)


@pytest.mark.slow
def test_vmap_round_chains_of_mcmc():
    kernel = ns.BlockGibbs(noisy, num_steps=5)
    mcmc = MCMC(
        kernel,
        num_warmup=2,
        num_samples=50,
        num_chains=40,
        chain_method=jax.vmap,
        progress_bar=False,
    )
    mcmc.run(random.key(0))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], float).mean(1)
    x, pi = exact(kernel)
    assert_within(draws.mean(0), np.tensordot(pi, x, 1), draws.std(0) / 40**0.5)


def mixture():
    with numpyro.plate("elements", 2):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(2.0 * z, 1.0))


def test_calibration_of_a_discrete_kernel():
    settings = dict(
        observed=["y"], key=random.key(0), num_simulations=300, num_draws=9, num_warmup=2
    )
    found = simulation_based_calibration(
        mixture, ns.BlockGibbs, **settings, batch_size=300, progress_bar=False
    )
    assert found.p_value > 1e-3


@pytest.mark.slow
def test_calibration_beside_nuts_and_gewekes_test():
    def model():
        noise = numpyro.sample("noise", dist.LogNormal(0.0, 0.3))
        z = numpyro.sample("z", dist.Bernoulli(0.3).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(2.0 * z, noise).to_event(1))

    def kernel(model):
        return Gibbs([(ns.BlockGibbs(model), ["z"]), (NUTS(model, max_tree_depth=4), ["noise"])])

    found = simulation_based_calibration(
        model,
        kernel,
        observed=["y"],
        key=random.key(1),
        num_simulations=200,
        num_draws=19,
        num_warmup=100,
        thinning=3,
        progress_bar=False,
    )
    assert found.p_value > 1e-3
    test = geweke_test(
        mixture, partial(ns.BlockGibbs, num_steps=1), observed=["y"], key=random.key(2)
    )
    assert test.p_value > 1e-3


def test_gibbs_steps_outside_of_a_program_are_compiled_once():
    x = jnp.ones((2, 4, 4), jnp.int8)
    first = ns.Ising((4, 4), 0.3).gibbs_steps(random.key(0), x, 1)
    num_programs = _program.cache_info().misses
    assert np.any(first != ns.Ising((4, 4), 0.1).gibbs_steps(random.key(0), x, 1))
    assert _program.cache_info().misses == num_programs
    np.testing.assert_array_equal(first, draw_by_hand(ns.Ising((4, 4), 0.3), random.key(0), x))


def draw_by_hand(d, key, x):
    blocks = d.split(x)
    keys = random.split(random.split(key, 1)[0], 2)
    black = d.conditional(0, tuple(blocks)).sample(keys[0])
    white = d.conditional(1, (black, blocks[1])).sample(keys[1])
    return d.join((black, white))


def test_a_start_of_many_chains_of_copies():
    """A lattice with copies of the event, several chains: the axes do not mix."""

    def model():
        numpyro.sample("x", ns.Ising((1, 2), 0.3, periodic=False).expand([3]).to_event(1))

    assert draw(ns.BlockGibbs(model), random.key(0), 5).z["x"].shape == (5, 3, 1, 2)


def hard_copies():
    """All that arrays of different ranks and infinite weights can be in a model."""
    with numpyro.plate("copies", 2), numpyro.handlers.scale(scale=np.array([0.5, 2.0])):
        with numpyro.handlers.mask(mask=np.array([True, False])):
            x = numpyro.sample("x", ns.Potts((2, 2), 3, -np.inf, np.zeros(3)))
            numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=np.stack([Y, Y]))


@pytest.mark.parametrize(
    "name", [k if k == "SwendsenWang" else pytest.param(k, marks=pytest.mark.slow) for k in KERNELS]
)
def test_under_the_switches_of_jax(name):
    with jax.debug_nans(True), jax.numpy_rank_promotion("raise"):
        drawn = draw(KERNELS[name](hard_copies), random.key(0), 3).z["x"]
    assert np.all(np.isin(drawn, (0, 1, 2)))
    kept = np.asarray(drawn)[:, 0]  # the masked copy has all states
    assert np.all(kept[:, 0] != kept[:, 1]) and np.all(kept[..., 0] != kept[..., 1])
