# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Unadjusted kernels: the metric and the step that warmup finds."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC
from numpyro.infer.hmc_util import build_adaptation_schedule

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_WARMUP = 200


def scaled_model():
    """Standard deviations 0.1 and 10, correlated by 0.9 in the second site."""
    numpyro.sample("a", dist.Normal(0.0, 0.1))
    covariance = 100 * jnp.array([[1.0, 0.9], [0.9, 1.0]])
    numpyro.sample("b", dist.MultivariateNormal(jnp.zeros(2), covariance))


@pytest.mark.parametrize("dense_mass", [pytest.param(False, marks=pytest.mark.slow), True])
def test_warmup_learns_the_metric_and_the_step_in_it_and_then_stops(dense_mass):
    kernel = ns.UnderdampedLangevin(
        scaled_model, num_steps=20, adapt_mass_matrix=True, dense_mass=dense_mass
    )
    mcmc = MCMC(
        kernel,
        num_warmup=NUM_WARMUP,
        num_samples=50,
        num_chains=200,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), extra_fields=("step_size", "adapt_state.inverse_mass_matrix"))
    fields = jax.tree.map(np.asarray, mcmc.get_extra_fields(group_by_chain=True))
    metric, step_size = fields["adapt_state.inverse_mass_matrix"], fields["step_size"]
    assert np.all(metric == metric[:, :1]) and np.all(step_size == step_size[:, :1])
    metric, step_size = metric[:, 0].mean(axis=0), step_size[:, 0]
    variances = np.array([0.01, 100.0, 100.0])
    got = np.diag(metric) if dense_mass else metric
    np.testing.assert_allclose(got / variances, 1, atol=0.3)  # NumPyro shrinks it
    if dense_mass:
        np.testing.assert_allclose(metric[1, 2], 90, atol=30)
    # In these coordinates the largest curvature is that of the correlation, 1 / (1 - 0.9), or one.
    largest = 1.0 if dense_mass else 10.0
    np.testing.assert_allclose(np.median(step_size) * np.sqrt(largest / 0.4), 1, atol=0.2)
    draws = mcmc.get_samples(group_by_chain=True)
    for name, sd in [("a", 0.1), ("b", 10.0)]:
        mean_square = np.mean(np.square(draws[name]), axis=1)
        error = np.std(mean_square) / np.sqrt(len(mean_square))
        assert np.all(abs(np.mean(mean_square, axis=0) - sd**2) < 4 * error + 0.02 * sd**2)


def test_the_step_follows_the_largest_curvature_since_the_last_window_and_then_stays(x64):
    """A well whose curvature grows outwards: the step shrinks as the chain meets more of it."""

    def potential_fn(z):
        return jnp.sum(z**2 / 2 + z**4 / 4)

    kernel = ns.UnderdampedLangevin(potential_fn=potential_fn, num_steps=5)
    state = kernel.init(random.key(0), 40, jnp.ones(1), (), {})
    sample = jax.jit(lambda state: kernel.sample(state, (), {}))
    ends = [end for _, end in build_adaptation_schedule(40)[:-1]]
    largest = 4.0  # at the start
    np.testing.assert_allclose(state.step_size, np.sqrt(0.4 / largest), rtol=1e-9)
    for i in range(45):
        state = sample(state)
        assert not state.diverging
        found = 1 + 3 * float(state.z[0]) ** 2
        largest = found if i in ends else max(largest, found if i < 40 else 0)
        np.testing.assert_allclose(state.step_size, np.sqrt(0.4 / largest), rtol=1e-9)


@pytest.mark.slow
def test_a_chain_that_is_led_astray_in_warmup_comes_back():
    """
    Where these chains start, far out on a straight slope, no curvature bounds the step; the well
    to which they slide would throw them out again with it.
    """

    def potential_fn(z):
        return jnp.sum(jnp.where(jnp.abs(z) < 1, 50 * z**2, 100 * jnp.abs(z) - 50))

    for kernel in (ns.ULA, ns.UnderdampedLangevin):
        mcmc = MCMC(
            kernel(potential_fn=potential_fn),
            num_warmup=200,
            num_samples=200,
            num_chains=50,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(random.key(0), init_params=jnp.full((50, 1), 30.0))
        x = np.asarray(mcmc.get_samples(group_by_chain=True))
        assert not np.any(mcmc.get_extra_fields()["diverging"])
        # Standard deviation 0.1; Euler-Maruyama's is larger by 5%.
        np.testing.assert_allclose(x.std(axis=(1, 2)) / 0.1, 1, atol=0.35)


def test_a_metric_that_is_none():
    for metric, message in [
        ([[1.0]], r"shape \(d,\), or a matrix with dense_mass=True"),
        ([1.0, -1.0], "must be positive .* got -1.0 as its smallest entry"),
        ([1.0, np.nan], "must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            ns.ULA(scaled_model, inverse_mass_matrix=metric)
    for metric, message in [
        (np.ones(3), r"shape \(d, d\)"),
        ([[1.0, 0.5], [0.4, 1.0]], "symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "got -1.0 as its smallest eigenvalue"),
    ]:
        with pytest.raises(ValueError, match=message):
            ns.SKROCK(scaled_model, inverse_mass_matrix=metric, dense_mass=True)
    kernel = ns.UnderdampedLangevin(scaled_model, inverse_mass_matrix=np.ones(2))
    with pytest.raises(ValueError, match="is for 2 unconstrained numbers, but there are 3"):
        kernel.init(random.key(0), 0, None, (), {})
