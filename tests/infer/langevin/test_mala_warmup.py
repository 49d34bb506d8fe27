# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""MALA: what warmup makes of its metric and its step size."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_metric_and_the_step_size_are_adapted():
    covariance = np.array([[1.0, 9.5, 0.0], [9.5, 100.0, 0.0], [0.0, 0.0, 0.01]])
    precision = np.linalg.inv(covariance)
    mcmc = MCMC(
        ns.MALA(potential_fn=lambda x: x @ precision @ x / 2, dense_mass=True),
        num_warmup=1_000,
        num_samples=1_000,
        progress_bar=False,
    )
    mcmc.run(random.key(0), init_params=jnp.array([0.5, 5.0, 0.1]), extra_fields=("accept_prob",))
    state = mcmc.last_state.adapt_state
    # In the adapted metric the target is nearly a standard normal: its spectrum is near one.
    spectrum = np.linalg.eigvals(precision @ np.asarray(state.inverse_mass_matrix, np.float64))
    assert 0.7 < spectrum.min() and spectrum.max() < 1.4
    assert abs(mcmc.get_extra_fields()["accept_prob"].mean() - 0.574) < 0.05
    np.testing.assert_allclose(np.cov(mcmc.get_samples().T), covariance, rtol=0.15, atol=0.05)


def test_a_given_metric_is_where_warmup_starts_and_without_adaptation_stays():
    """On a Gaussian of variances 10^4 and 10^-4: in their metric the curvature is one."""
    variances = jnp.array([1e4, 1e-4])
    moved = {}
    for adapt in (False, True):
        kernel = ns.MALA(
            potential_fn=lambda x: jnp.sum(x**2 / variances) / 2,
            inverse_mass_matrix=variances,
            adapt_mass_matrix=adapt,
        )
        state = kernel.init(random.key(0), 150, jnp.sqrt(variances), (), {})
        np.testing.assert_array_equal(state.adapt_state.inverse_mass_matrix, variances)
        np.testing.assert_allclose(state.adapt_state.step_size, 1.36 * 2 ** (-1 / 3), rtol=1e-3)
        sample = jax.jit(lambda state, kernel=kernel: kernel.sample(state, (), {}))
        for _ in range(150):
            state = sample(state)
        moved[adapt] = state.adapt_state.inverse_mass_matrix / variances
    np.testing.assert_array_equal(moved[False], 1)
    assert np.all(moved[True] != 1) and np.all(np.abs(np.log(moved[True])) < 1)


def test_a_given_metric_is_for_sites_in_alphabetical_order():
    def model():
        numpyro.sample("b", dist.Normal(0, 100.0))
        numpyro.sample("a", dist.Normal(0, 0.1).expand([2]).to_event(1))

    kernel = ns.MALA(model, inverse_mass_matrix=[0.01, 0.01, 1e4], adapt_mass_matrix=False)
    state = kernel.init(random.key(0), 0, None, (), {})
    np.testing.assert_allclose(state.adapt_state.step_size, 1.36 * 3 ** (-1 / 3), rtol=1e-3)


def test_a_target_acceptance_is_reached():
    mcmc = MCMC(
        ns.MALA(potential_fn=lambda x: jnp.sum(x**2) / 2, target_accept_prob=0.8),
        num_warmup=500,
        num_samples=200,
        progress_bar=False,
    )
    mcmc.run(random.key(0), init_params=jnp.ones(5), extra_fields=("accept_prob",))
    accept_prob = mcmc.get_extra_fields()["accept_prob"]
    assert abs(accept_prob.mean() - 0.8) < 0.04
    np.testing.assert_allclose(mcmc.last_state.mean_accept_prob, accept_prob.mean(), rtol=1e-4)
