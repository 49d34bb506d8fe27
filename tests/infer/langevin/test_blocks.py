# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""NumPyro's structured metrics: what a block learns, and that it is the metric of its own sites."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.infer.langevin.targets import flat_root, unwhiten, whiten

pytestmark = pytest.mark.usefixtures("quick_compilation")

RHO = 0.9
COVARIANCE = np.array([[1.0, RHO], [RHO, 1.0]])


def model():
    """`a` and `c` are correlated; `b`, in between in the vector of all, is not."""
    numpyro.sample("b", dist.Normal(0.0, 3.0).expand([3]).to_event(1))
    a = numpyro.sample("a", dist.Normal())
    numpyro.sample("c", dist.Normal(RHO * a, np.sqrt(1 - RHO**2)))


def test_a_root_by_block_is_that_of_the_whole_matrix():
    """In the vector (a, b1, b2, b3, c); the block is of (c, a)."""
    rng = np.random.default_rng(0)
    block, diagonal = rng.normal(size=(2, 2)), rng.uniform(1, 2, size=3)
    whole = np.zeros((5, 5))
    whole[np.ix_([4, 0], [4, 0])] = block
    whole[[1, 2, 3], [1, 2, 3]] = diagonal
    z = {"a": jnp.zeros(()), "b": jnp.zeros(3), "c": jnp.zeros(())}
    root = flat_root({("c", "a"): jnp.array(block), ("b",): jnp.array(diagonal)}, z)
    v = rng.normal(size=5).astype(np.float32)
    np.testing.assert_allclose(whiten(root, v), whole @ v, rtol=1e-5)
    np.testing.assert_allclose(unwhiten(root, v), whole.T @ v, rtol=1e-5)


@pytest.mark.parametrize(
    "kernel, settings",
    [
        (ns.MALA, {}),
        pytest.param(ns.MALT, {}, marks=pytest.mark.slow),
        (ns.UnderdampedLangevin, {"adapt_mass_matrix": True}),
    ],
)
def test_warmup_learns_the_correlation_of_a_block(kernel, settings):
    block = ("c", "a")
    kernel = kernel(model, dense_mass=[block], inverse_mass_matrix={block: COVARIANCE}, **settings)
    mcmc = MCMC(kernel, num_warmup=300, num_samples=1, progress_bar=False)
    mcmc.run(random.key(0))
    metric = mcmc.last_state.adapt_state.inverse_mass_matrix
    assert set(metric) == {block, ("b",)}
    learned = np.asarray(metric[block])
    assert 0.7 < learned[0, 1] / np.sqrt(learned[0, 0] * learned[1, 1]) < 0.99
    assert metric["b",].shape == (3,) and np.all(np.asarray(metric["b",]) > 3)


def test_of_one_block_it_is_the_dense_metric():
    """The same draws, up to the rounding of other sums."""
    ways = [dict(dense_mass=True), dict(dense_mass=[("a", "b", "c")])]
    kernels = [ns.MALA(model, step_size=0.2, num_steps=2, **way) for way in ways]
    states = [kernel.init(random.key(0), 0, None, (), {}) for kernel in kernels]
    for _ in range(2):
        states = [
            jax.jit(kernel.sample)(state, (), {})
            for kernel, state in zip(kernels, states, strict=True)
        ]
    first, second = (ravel_pytree(state.z)[0] for state in states)
    np.testing.assert_allclose(first, second, rtol=1e-4)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dense_mass": "a"}, "list of tuples of site names"),
        ({"dense_mass": [("a", 1)]}, "tuple of names of sites, got"),
        ({"dense_mass": [("a", "b"), "a"]}, r"has the sites \['a'\] twice"),
        ({"dense_mass": True, "inverse_mass_matrix": {"a": [1.0]}}, "needs dense_mass="),
        ({"dense_mass": ["a"], "inverse_mass_matrix": np.eye(5)}, "must be a dict by block"),
        (
            {"dense_mass": [("a", "c")], "inverse_mass_matrix": {("a", "b"): np.ones(4)}},
            r"has the sites \['a'\] twice",
        ),
        ({"inverse_mass_matrix": {"a": [-1.0]}}, "must be positive"),
    ],
)
@pytest.mark.parametrize("kernel", [ns.MALA, ns.UnderdampedLangevin])
def test_blocks_that_are_none(kernel, settings, message):
    with pytest.raises(ValueError, match=message):
        kernel(model, **settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dense_mass": [("a", "z")]}, r"names \['z'\], but the latent sites .*'a', 'b', 'c'"),
        ({"inverse_mass_matrix": {"b": np.ones(2)}}, "is for 2 unconstrained numbers, .* have 3"),
    ],
)
def test_blocks_of_another_model(settings, message):
    with pytest.raises(ValueError, match=message):
        ns.MALA(model, **settings).init(random.key(0), 0, None, (), {})
