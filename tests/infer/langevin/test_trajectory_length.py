# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The length of the trajectories of MAMS that warmup finds, on Gaussians where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.infer.langevin.decoherence import autocorrelation_time
from numpyro_scores.infer.langevin.targets import Target, init
from numpyro_scores.infer.langevin.trajectory_length import (
    MEAN_LENGTH,
    SPREAD,
    random_num_steps,
    way_to_u_turn,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)


def gradients_for_a_sample(mean, spread):
    """Over the number of steps a unit of length, of a coordinate or of its square."""
    lengths = mean * (1 + spread * np.linspace(-1, 1, 2_001))
    rho = max(abs(np.mean(np.cos(lengths))), np.mean(np.cos(lengths) ** 2))
    return mean * (1 + rho) / (1 - rho)


def test_the_default_length_is_the_best_for_a_gaussian():
    means = np.linspace(0.5, 3, 251)
    best = means[np.argmin([gradients_for_a_sample(mean, SPREAD) for mean in means])]
    np.testing.assert_allclose(best, MEAN_LENGTH, rtol=0.03)
    # Lengths from 0 to twice the mean take a quarter more.
    widest = min(gradients_for_a_sample(mean, 1.0) for mean in means)
    assert widest > 1.25 * gradients_for_a_sample(MEAN_LENGTH, SPREAD)


def test_numbers_of_steps_are_uniform_about_their_mean():
    uniform = jnp.asarray((np.arange(12_000) + 0.5) / 12_000)
    steps = np.asarray(random_num_steps(uniform, 7.0))
    np.testing.assert_array_equal(np.unique(steps), np.arange(4, 11))
    assert np.ptp(np.bincount(steps)[4:]) <= 1
    for mean in (1.0, 1.7, 2.6, 9.3):
        np.testing.assert_allclose(np.mean(random_num_steps(uniform, mean)), mean, atol=0.13)


def test_the_way_to_a_u_turn_of_a_gaussian_is_half_a_period():
    """At any step, as long as the metric makes it round."""
    d = 1_000
    scale = jnp.exp(jnp.linspace(-1, 1, d))
    target = Target(lambda x: jnp.sum((x / scale) ** 2) / 2)

    @jax.jit
    @jax.vmap
    def way(key, step_size):
        key_start, key = random.split(key)
        start = init(scale * random.normal(key_start, (d,)), target)
        return way_to_u_turn(key, start, target, step_size, scale, 100)

    ways = way(random.split(KEY, 40), jnp.tile(jnp.array([0.05, 0.3]), 20)).reshape(20, 2)
    np.testing.assert_allclose(ways.mean(axis=0), np.pi, rtol=0.02)
    start = init(jnp.ones(2), Target(lambda x: -10 * x[0]))
    assert way_to_u_turn(KEY, start, Target(lambda x: -10 * x[0]), 0.1, None, 7) == np.float32(0.7)
    nowhere = Target(lambda x: jnp.where(x[0] > 1.15, jnp.nan, -1.0) * x[0])
    assert way_to_u_turn(KEY, init(jnp.ones(2), nowhere), nowhere, 0.1, None, 50) < 4


def model():
    numpyro.sample("x", dist.Normal(0, 2).expand([100]).to_event(1))


@pytest.mark.parametrize("length", [ns.UTurnLength(), ns.AutocorrelationLength(share=0.5)])
def test_warmup_finds_the_length_and_the_step_for_it(length):
    """In a metric that does not know that all scales are 2."""
    mcmc = MCMC(
        ns.MAMS(model, trajectory_length=length, adapt_mass_matrix=False),
        num_warmup=500,
        num_samples=250,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(KEY, extra_fields=("num_grad_evals", "accept_prob", "trajectory_length"))
    extra, state = mcmc.get_extra_fields(), mcmc.last_state
    found = np.asarray(state.trajectory_length)
    if isinstance(length, ns.UTurnLength):
        np.testing.assert_allclose(found, 2.8, rtol=0.06)
    else:
        time = jax.vmap(autocorrelation_time)(state.looks)
        np.testing.assert_allclose(found, 1.3 * np.minimum(0.5 * time, 2), rtol=1e-5)
        assert np.all(found > 1.3)
    np.testing.assert_array_equal(extra["trajectory_length"], np.repeat(found, 250))
    steps = np.asarray(extra["num_grad_evals"]).reshape(2, -1).mean(axis=1)
    np.testing.assert_allclose(steps, found / state.step_size, rtol=0.15)
    assert 0.84 < np.mean(extra["accept_prob"]) < 0.96
    np.testing.assert_allclose(np.mean(mcmc.get_samples()["x"] ** 2), 4, rtol=0.03)


def test_a_warmup_too_short_to_look_keeps_the_first_length():
    kernel = ns.MAMS(model, trajectory_length=ns.AutocorrelationLength(), step_size=0.3)
    mcmc = MCMC(kernel, num_warmup=10, num_samples=2, progress_bar=False)
    mcmc.run(KEY)
    assert mcmc.last_state.trajectory_length == np.float32(1.3)
    with pytest.raises(ValueError, match="share"):
        ns.AutocorrelationLength(share=0.0)
