# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Runs of particles: what is compiled anew, runs under JAX's transformations, and words."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within
from jax import random
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def of_one_number(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(x, 1), obs=y)


def test_a_model_that_reads_its_data_elsewhere_is_compiled_anew_when_these_change():
    data = np.zeros(3, np.float32)

    def model():
        x = numpyro.sample("x", dist.Normal(0, 10))
        numpyro.sample("y", dist.Normal(x, 1), obs=data)

    smc = ns.TemperedSMC(model, 500, progress_bar=False)
    smc.run(random.key(0))
    first = smc._programs
    assert_within(smc.get_samples()["x"].mean(), 0, 0.06)
    smc.run(random.key(1))
    assert smc._programs is first
    data[:] = 5  # in place
    smc.run(random.key(0))
    assert smc._programs is not first
    assert_within(smc.get_samples()["x"].mean(), 5 * 3 / 3.01, 0.06)


def test_runs_are_mapped_over_data():
    def run(key, y):
        smc = ns.TemperedSMC(of_one_number, 500, progress_bar=False)
        smc.run(key, y)
        return smc.get_samples()["x"], smc.log_evidence, smc.log_evidence_error

    y = np.array([-2.0, 0.0, 3.0], np.float32)
    with jax.checking_leaks():
        x, log_evidence, error = jax.jit(jax.vmap(run))(random.split(random.key(0), 3), y)
    assert_within(x.mean(axis=1), y / 2, np.sqrt(0.5 / 100))
    assert_within(log_evidence, dist.Normal(0, np.sqrt(2)).log_prob(y), error)
    # The arguments may be known too, and nothing else.
    alone = jax.jit(lambda key: run(key, 3.0))(random.split(random.key(0), 3)[2])
    np.testing.assert_allclose(alone[1], log_evidence[2], rtol=1e-4)


@pytest.mark.slow
def test_a_time_series_by_scan():
    y = jnp.cumsum(random.normal(random.key(0), (6,)))

    def model(y):
        def step(x, y):
            x = numpyro.sample("x", dist.Normal(0.9 * x, 0.7))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        scan(step, jnp.zeros(()), y)

    smc = ns.TemperedSMC(model, 1_000, progress_bar=False)
    smc.run(random.key(0), y)
    i = np.arange(6)
    root = 0.7 * np.where(i[:, None] >= i, 0.9 ** np.maximum(i[:, None] - i, 0), 0)
    covariance = root @ root.T + 0.25 * np.eye(6)
    exact = dist.MultivariateNormal(jnp.zeros(6), jnp.array(covariance)).log_prob(y)
    assert_within(smc.log_evidence, exact, smc.log_evidence_error)


def scaled(y):
    with numpyro.handlers.scale(scale=9.0):
        x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(x, 3), obs=y)


def masked(y):
    prior = dist.Normal(jnp.zeros(2), 1).mask(jnp.array([True, False])).to_event(1)
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[0], 3), obs=y)


def subsampled(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as i:
        numpyro.sample("y", dist.Normal(x, 1), obs=y[i])


def with_a_key(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    shift = random.normal(numpyro.prng_key())
    numpyro.sample("y", dist.Normal(x + shift, 1), obs=y)


@pytest.mark.parametrize(
    "model, message",
    [
        (scaled, r"latent site 'x' has the scale 9.0 .* not the density of its draws"),
        (masked, r"a mask leaves out the density of the latent site 'x'"),
        (subsampled, r"changes with its random key: .* plate with subsample_size"),
        (with_a_key, r"changes with its random key: by numpyro.prng_key\(\)"),
    ],
)
@pytest.mark.parametrize("sampler", [ns.TemperedSMC])
def test_densities_that_are_not_those_of_the_draws_are_refused(sampler, model, message):
    smc = sampler(model, 10, progress_bar=False)
    with pytest.raises(ValueError, match=message):
        smc.run(random.key(0), jnp.arange(9.0) if model is subsampled else jnp.array(1.0))


def test_no_kernel_no_distribution_and_no_integer():
    with pytest.raises(TypeError, match="not a kernel of MCMC"):
        MCMC(ns.TemperedSMC(of_one_number), num_warmup=1, num_samples=1)
    with pytest.raises(
        TypeError, match="takes a NumPyro model, .*, but got the distribution Normal"
    ):
        ns.TemperedSMC(dist.Normal(0, 1))
    with pytest.raises(ValueError, match=r"write jax.random.key\(0\)"):
        ns.TemperedSMC(of_one_number, 10).run(0, 1.0)
