# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Draws and log likelihoods in blocks, the noise levels of a user's process, and short names."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax import random

import numpyro_scores as ns
from numpyro_scores.processes._base import check_noise_levels

pytestmark = pytest.mark.usefixtures("quick_compilation")

PROCESS = ns.VarianceExploding(0.1, 10.0)
KEY = random.key(0)
SAMPLER = ns.samplers.Ancestral(num_steps=3)


def denoiser(x, sigma):
    return x / (1 + sigma**2)


def of_power(scale, x, power):
    return jnp.sum((x / scale) ** power)


PRIOR = ns.DiffusionPrior(denoiser, PROCESS, 2, sampler=SAMPLER)


@pytest.mark.parametrize(
    "make_key, shape", [(random.key, ()), (random.PRNGKey, (7,)), (random.key, (2, 3))]
)
def test_draws_in_blocks_are_the_draws(make_key, shape):
    whole = PRIOR.sample(make_key(3), shape)
    for batch_size in (1, 4, 100):
        found = PRIOR.sample(make_key(3), shape, batch_size=batch_size)
        np.testing.assert_allclose(found, whole, rtol=1e-5)


@pytest.mark.parametrize("key", [None, KEY])
def test_likelihoods_in_blocks_are_the_likelihoods(key):
    x = random.normal(KEY, (2, 3, 2))
    flow = ns.ProbabilityFlow(num_steps=2, trace=ns.HutchinsonTrace(num_probes=2))
    whole = PRIOR.log_likelihood(x, key=key, flow=flow)
    found = PRIOR.log_likelihood(x, key=key, flow=flow, batch_size=4)
    assert found.nats.shape == (2, 3)
    np.testing.assert_allclose(found.nats, whole.nats, rtol=1e-5)


def test_a_block_of_no_size_is_refused():
    for call in (partial(PRIOR.sample, KEY), partial(PRIOR.log_likelihood, jnp.zeros(2))):
        with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
            call(batch_size=0)


@dataclass(frozen=True)
class Cosine:
    """A process of one's own, of which only the levels matter to a prior."""

    sigma_min: float = 0.0
    sigma_max: float = float("inf")

    def noise_level(self, t):
        return jnp.tan(jnp.pi * t / 2)


@pytest.mark.parametrize(
    "process, words",
    [
        (Cosine(), r"Cosine.sigma_min must be finite and positive, got 0\.0"),
        (Cosine(0.01), "Cosine.sigma_max must be finite and positive, got inf"),
        (Cosine(0.0, 80.0), "sigma_min must be finite"),
        (Cosine(float("nan"), 80.0), "sigma_min must be finite"),
        (Cosine(80.0, 0.01), r"sigma_min < sigma_max, got \(80.0, 0.01\)"),
    ],
)
def test_levels_of_a_users_process_that_are_none_are_told(process, words):
    with pytest.raises(ValueError, match=words):
        ns.DiffusionPrior(denoiser, process, 2)


def test_a_users_process_with_levels_is_taken():
    prior = ns.DiffusionPrior(denoiser, Cosine(0.1, 10.0), 2, sampler=SAMPLER)
    np.testing.assert_allclose(prior.sample(KEY, (3,)), PRIOR.sample(KEY, (3,)), rtol=1e-6)


@dataclass
class Changeable:
    sigma_min: float = 0.1
    sigma_max: float = 10.0


def test_a_process_that_may_change_is_told():
    with pytest.raises(TypeError, match=r"Changeable must be hashable.*frozen=True"):
        ns.DiffusionPrior(denoiser, Changeable(), 2)


@dataclass(frozen=True)
class FromZero:
    def noise_level(self, t):
        return 80.0 * t


def test_noise_levels_over_time_are_checked():
    for process in (PROCESS, ns.DDPM(10), ns.VariancePreserving(), ns.SubVariancePreserving()):
        check_noise_levels(process)
    with pytest.raises(ValueError, match="FromZero.noise_level must .* at time 0 it is 0"):
        check_noise_levels(FromZero())
    with pytest.raises(ValueError, match="Cosine.noise_level must .* at time 0 it is 0"):
        check_noise_levels(Cosine())


def test_names_are_one_line_without_arrays():
    net = ns.nn.MLPDenoiser(2, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    prior = ns.DiffusionPrior(net, PROCESS, 2, sampler=SAMPLER)
    assert repr(prior) == (
        "DiffusionPrior(event_shape=(2,), denoiser=MLPDenoiser, sigma=0.1, "
        "process=VarianceExploding(sigma_min=0.1, sigma_max=10.0), "
        "log_density=NoisePathIntegral(num_nodes=32, trace=None), "
        "sampler=Ancestral(num_steps=3, spacing=KarrasSpacing(rho=7.0)))"
    )
    sampler = partial(ns.MALA, step_size=0.1)
    f = partial(of_power, jnp.ones(2), power=2)
    energy = ns.EnergyDistribution(f, 2, log_normalizer=1.5, sampler=sampler)
    assert repr(energy) == (
        "EnergyDistribution(event_shape=(2,), energy=partial(of_power, ...), "
        "log_normalizer=1.5, sampler=MALA(step_size=0.1))"
    )
    others = [
        ns.ProductOfExperts([prior, dist.Normal(0, 1).expand([2]).to_event(1)]),
        ns.ScoreDistribution(jnp.negative, 2),
        ns.GeneratorPrior(jnp.tanh, 2),
        ns.BernoulliRBM(*map(jnp.ones, RBM)),
        jax.vmap(lambda _: PRIOR)(jnp.zeros(2)),
    ]
    for distribution in others:
        assert " at 0x" not in repr(distribution) and "\n" not in repr(distribution)
        assert len(repr(distribution)) < 600
    traced = []
    jax.jit(lambda prior: traced.append(repr(prior.at(1.0 * prior.sigma))))(PRIOR)
    assert "sigma=traced[]" in traced[0]


RBM = ((3, 2), 3, 2)


def test_a_distribution_stands_for_its_score_and_its_energy():
    x = random.normal(KEY, (30, 2))
    d = ns.diagnostics
    normal = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    kinds = [normal, ns.EnergyDistribution(normal, 2), ns.ScoreDistribution(jnp.negative, 2)]
    expected = d.kernel_stein_discrepancy(x, jnp.negative).statistic
    for kind in kinds:
        found = d.kernel_stein_discrepancy(x, kind).statistic
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert d.fisher_divergence(x, kind, jnp.negative).value < 1e-10
        chosen = d.stein_thinning(x, kind, 3).indices
        np.testing.assert_array_equal(chosen, d.stein_thinning(x, jnp.negative, 3).indices)
        assert d.conservativeness(kind, x, key=KEY, num_loops=2).loop_residual < 1e-4
    # The prior is that of data with noise of variance 0.01.
    found = d.fisher_divergence(x, PRIOR, jnp.negative).value
    half = jnp.mean(jnp.sum(x**2, axis=1)) / 2
    np.testing.assert_allclose(found, half * (1 - 1 / 1.01) ** 2, rtol=1e-2)


def test_the_energy_of_a_distribution_has_its_support():
    gamma = dist.Gamma(2.0, 3.0).expand([1]).to_event(1)
    prior = ns.EnergyDistribution(gamma, 1)
    assert prior.support == gamma.support
    x = jnp.array([0.7])
    np.testing.assert_allclose(prior.log_prob(x), gamma.log_prob(x), rtol=1e-6)
