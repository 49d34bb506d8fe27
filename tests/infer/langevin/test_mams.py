# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""MAMS: exact draws stay exact, and a Gaussian's draws are independent in high dimension."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.langevin.bent_target import assert_right_moments, bent, exact_draws
from jax import random
from numpyro.infer import MCMC
from scipy.stats import kstest

import numpyro_scores as ns
from numpyro_scores.infer.langevin import mams
from numpyro_scores.infer.langevin.targets import Target, init
from numpyro_scores.infer.low_rank import LowRankRoot

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)


ROOTS = {
    "identity": None,
    "dense": np.array([[1.2, 0.5], [0.0, 0.6]]),
    "low rank": LowRankRoot(np.array([1.2, 0.7]), np.array([[0.6], [0.8]]), np.array([0.6])),
}


def test_exact_draws_stay_exact(x64):
    """From 40,000 of them, a trajectory each, of which many are rejected."""
    starts, distribution = exact_draws(KEY, 40_000)
    target = Target(bent)

    @jax.jit
    @jax.vmap
    def moved(key, x):
        key_length, key = random.split(key)
        num_steps = random.randint(key_length, (), 1, 4)
        new = mams.step(key, init(x, target), target, 0.6, None, num_steps)
        return new.point.x, new.accept_prob

    ends, accept_prob = moved(random.split(random.key(1), 40_000), starts)
    assert 0.3 < np.mean(accept_prob) < 0.9
    x, y = np.asarray(ends).T
    assert kstest(x, distribution).pvalue > 1e-3
    assert kstest((y - np.sin(2 * x)) * np.sqrt(2), "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    "metric", [pytest.param("identity", marks=pytest.mark.slow), "dense", "low rank"]
)
def test_a_trajectory_leaves_the_target_as_it_is(x64, metric):
    """At a step so long that some trajectories are rejected, from 256 chains."""
    root = jax.tree.map(jnp.asarray, ROOTS[metric])
    target = Target(bent)

    def draw(carry, key):
        key_length, key = random.split(key)
        num_steps = random.randint(key_length, (), 1, 5)
        new = mams.step(key, carry, target, 0.5, root, num_steps)
        return new.point, (new.point.x, new.accept_prob)

    def chain(key):
        _, draws = jax.lax.scan(draw, init(jnp.zeros(2), target), random.split(key, 1_200))
        return draws

    x, accept_prob = jax.jit(jax.vmap(chain))(random.split(KEY, 256))
    assert 0.4 < np.mean(accept_prob) < 0.9
    assert_right_moments(np.asarray(x[:, 200:]))


def test_the_energy_error_is_of_second_order_in_the_step(x64):
    root = jnp.array([[1.2, 0.5], [0.0, 0.6]])
    starts = jax.vmap(lambda x: init(x, Target(bent)))(random.normal(KEY, (200, 2)) / 2)

    def refused(step_size, num_steps):
        def one(key, start):
            return mams.step(key, start, Target(bent), step_size, root, num_steps).accept_prob

        return 1 - jnp.mean(jax.vmap(one)(random.split(KEY, 200), starts))

    np.testing.assert_allclose(refused(0.04, 10) / refused(0.02, 20), 4, rtol=0.05)


def model(scale):
    with numpyro.plate("entries", 100):
        numpyro.sample("x", dist.Normal(0, scale))


def test_draws_of_a_gaussian_in_high_dimension_are_independent():
    scale = jnp.exp(jnp.linspace(-2, 2, 100))
    mcmc = MCMC(
        ns.MAMS(model, trajectory_length=np.pi / 2),
        num_warmup=600,
        num_samples=400,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(KEY, scale, extra_fields=("num_grad_evals", "accept_prob"))
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"]) / np.asarray(scale)
    extra = mcmc.get_extra_fields()
    assert 0.85 < np.mean(extra["accept_prob"]) < 0.97
    np.testing.assert_allclose(np.mean(x**2), 1, atol=0.03)
    # What is left is the one in ten that are rejected.
    assert abs(np.mean(x[:, 1:] * x[:, :-1])) < 0.25
    steps = np.asarray(extra["num_grad_evals"])
    mean = np.pi / 2 / float(mcmc.last_state.step_size[0])
    np.testing.assert_allclose(steps[:400].mean(), mean, rtol=0.06)


def test_what_it_cannot_do_is_told():
    with pytest.raises(ValueError, match="at least two unconstrained numbers.*NUTS"):
        kernel = ns.MAMS(lambda: numpyro.sample("x", dist.Normal()), step_size=0.1)
        MCMC(kernel, num_warmup=1, num_samples=1, progress_bar=False).run(KEY)
    with pytest.raises(ValueError, match="trajectory_length"):
        ns.MAMS(model, trajectory_length=0.0)
