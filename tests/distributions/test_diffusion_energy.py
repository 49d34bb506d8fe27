# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Diffusion priors of an energy, on a mixture in one dimension where everything is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from distributions.mixture import PROCESS, X, denoiser, exact_values, log_density
from jax import random
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

from numpyro_scores import (
    MALA,
    MALT,
    ClassifierFreeGuidance,
    DiffusionPrior,
    NoiseLevels,
    NoisePathIntegral,
    ReplicaExchange,
    to_inference_data,
)
from numpyro_scores.denoisers import DenoiserOfEnergy
from numpyro_scores.infer.guards import is_unnormalized

pytestmark = pytest.mark.usefixtures("quick_compilation")


def energy(x, sigma):
    """Up to a constant of 0.5."""
    return 0.5 - log_density(x, sigma)


def prior(**kwargs):
    return DiffusionPrior(energy, PROCESS, 1, **kwargs)


@pytest.mark.parametrize("sigma", [0.02, 0.7])
def test_value_score_and_denoised_value_are_those_of_the_energy(x64, sigma):
    d = prior().at(sigma)
    # By whatever it is told that there is an energy.
    assert DiffusionPrior(DenoiserOfEnergy(energy), PROCESS, 1).has_energy
    # Known up to a constant; a normaliser makes it known, and the integral of the noise path is.
    normalised = prior(log_normalizer=lambda sigma: -0.5 + 0.0 * sigma).at(sigma)
    by_a_number = prior(log_normalizer=-0.5).at(sigma)
    by_integral = prior(log_density=NoisePathIntegral(64)).at(sigma)

    @jax.jit
    def found(x):
        of_energy = jax.vmap(jax.value_and_grad(d.log_prob))(x)
        others = [other.log_prob(x) for other in (normalised, by_a_number, by_integral)]
        return *of_energy, d.score(x), d.denoise(x), others

    value, grad, score, denoised, (known, by_a_number, integrated) = found(X)
    exact, slope, mean = exact_values(X, sigma)
    np.testing.assert_allclose(value, exact - 0.5, rtol=1e-12)
    np.testing.assert_allclose(grad, slope)
    np.testing.assert_allclose(score, grad, rtol=1e-12)
    np.testing.assert_allclose(denoised, mean, atol=1e-9)
    np.testing.assert_allclose(known, exact, rtol=1e-9)
    np.testing.assert_allclose(by_a_number, exact, rtol=1e-9)
    np.testing.assert_allclose(integrated, exact, atol=2e-3)
    assert [is_unnormalized(d) for d in (d, normalised, by_integral)] == [True, False, False]


def test_the_value_follows_the_noise_level_as_the_heat_equation_wants_it(x64):
    def value(sigma, x):
        return prior().at(sigma).log_prob(x)

    slope = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(0.7, X)
    score = prior().at(0.7).score
    divergence = jax.jit(jax.vmap(lambda x: jnp.trace(jax.jacobian(score)(x))))(X)
    of_score = exact_values(X, 0.7)[1][:, 0] ** 2
    np.testing.assert_allclose(slope, 0.7 * (divergence + of_score), rtol=1e-9)


def test_small_noise_levels_lose_no_digits():
    # By way of the denoiser the score of a point of size 3 would be off by 3 * 2^-24 / 0.02^2.
    x = X.astype(np.float32)
    np.testing.assert_allclose(jax.jit(prior().score)(x), exact_values(x, 0.02)[1], atol=1e-5)


def test_draws_are_those_of_its_denoiser():
    of_energy, of_denoiser = (d.sample(random.key(0), (50,)) for d in (prior(), by_denoiser()))
    np.testing.assert_allclose(of_energy, of_denoiser, atol=2e-3)


def by_denoiser():
    return DiffusionPrior(denoiser, PROCESS, 1)


def test_a_label_is_handled_by_guidance(x64):
    def labelled(x, sigma, label=None):
        return energy(x, sigma) if label is None else energy(x - label, sigma)

    guided = DiffusionPrior(ClassifierFreeGuidance(labelled, 2, 1.5), PROCESS, 1).at(0.5)
    of_class = DiffusionPrior(partial(labelled, label=2), PROCESS, 1).at(0.5)
    moved, unmoved = exact_values(X - 2, 0.5)[0] - 0.5, exact_values(X, 0.5)[0] - 0.5
    found = jax.jit(lambda x: (guided.log_prob(x), of_class.log_prob(x)))(X)
    np.testing.assert_allclose(found[0], 1.5 * moved - 0.5 * unmoved, rtol=1e-12)
    np.testing.assert_allclose(found[1], moved, rtol=1e-12)


# In models.

Y, NOISE = 0.3, 1.2


def model(prior, y=Y):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[0], NOISE), obs=y)


def exact_moments():
    grid = np.linspace(-8, 8, 8001)
    log_p = np.asarray(exact_values(grid[:, None], 0.3)[0])
    p = np.exp(log_p - (grid - Y) ** 2 / (2 * NOISE**2))
    p /= p.sum()
    return np.array([p @ grid, p @ grid**2, p @ (grid < -0.7)])


@pytest.mark.parametrize("kernel", [MALA, MALT, NUTS])
def test_metropolis_kernels_draw_from_the_energy(kernel):
    mcmc = MCMC(
        kernel(model),
        num_warmup=300,
        num_samples=1_500,
        num_chains=8,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), prior(sigma=0.3))
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], np.float64)[..., 0]
    for f, exact in zip([x, x**2, x < -0.7], exact_moments(), strict=True):
        f = f.astype(float)
        error = f.std() / np.sqrt(effective_sample_size(f))
        assert error < 0.1
        np.testing.assert_allclose(f.mean(), exact, atol=4.5 * error)


def test_an_observed_site_has_a_log_likelihood_once_its_normaliser_is_known():
    def of_data(prior):
        shift = numpyro.sample("shift", dist.Normal())
        data = jnp.broadcast_to(jnp.asarray(X, float), X.shape)
        with numpyro.plate("points", len(X)):
            numpyro.sample("x", shifted(prior, shift), obs=data)

    def shifted(prior, shift):
        return dist.TransformedDistribution(prior, dist.transforms.AffineTransform(shift, 1.0))

    mcmc = MCMC(MALA(of_data), num_warmup=10, num_samples=5, progress_bar=False)
    mcmc.run(random.key(0), prior(sigma=0.7, log_normalizer=-0.5))
    found = to_inference_data(mcmc, log_likelihood=True).log_likelihood["x"]
    shift = np.asarray(mcmc.get_samples()["shift"])
    exact = [exact_values(X - s, 0.7)[0] for s in shift]
    np.testing.assert_allclose(np.squeeze(found), exact, atol=1e-4)
    mcmc.run(random.key(0), prior(sigma=0.7))
    with pytest.raises(ValueError, match="known up to a constant only: give .* log_normalizer"):
        to_inference_data(mcmc, log_likelihood=True)


def test_an_inferred_noise_level_wants_a_normaliser():
    def levels(prior):
        sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 0.5))
        numpyro.sample("x", prior.at(sigma), obs=jnp.ones(1))

    with pytest.raises(ValueError, match="normalis.*sigma"):
        MALA(levels).init(random.key(0), 0, None, (prior(),), {})
    state = MALA(levels).init(random.key(0), 0, None, (prior(log_normalizer=-0.5),), {})
    assert np.isfinite(state.potential_energy)


class Counter:
    """Counts evaluations at run time, of points that are batched, too."""

    def __init__(self):
        self.count = 0

    def energy(self, x, sigma):
        jax.debug.callback(self.add, sigma)
        return energy(x, sigma)

    def add(self, _):
        self.count += 1

    def of_run(self, kernel, num_samples, **fields):
        mcmc = MCMC(kernel, num_warmup=0, num_samples=num_samples, progress_bar=False)
        d = DiffusionPrior(self.energy, PROCESS, 1)
        mcmc.warmup(random.key(0), d)
        jax.effects_barrier()
        self.count = 0
        mcmc.run(random.key(1), d, **fields)
        jax.effects_barrier()
        return mcmc


def test_a_step_of_a_metropolis_kernel_is_one_evaluation():
    counter = Counter()
    counter.of_run(MALA(model, step_size=0.1, num_steps=3), 20)
    assert counter.count == 3 * 20
    nuts = NUTS(model, step_size=0.1, adapt_step_size=False)
    mcmc = counter.of_run(nuts, 20, extra_fields=("num_steps",))
    assert counter.count == np.sum(mcmc.get_extra_fields()["num_steps"])


@pytest.mark.slow
def test_a_swap_between_levels_is_two_evaluations_and_one_for_the_gradient_there():
    counter = Counter()
    levels = NoiseLevels((0.02, 0.2, 2.0))
    counter.of_run(ReplicaExchange(MALA(model, step_size=0.1, num_steps=4), levels), 20)
    assert counter.count == 20 * 3 * (4 + 3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DiffusionPrior(lambda x, s: x[None], PROCESS, 1), r"\(1, 1\). Or to shape \(\)"),
        (lambda: DiffusionPrior(denoiser, PROCESS, 1, log_normalizer=0.0), "leave log_normalizer"),
        (
            lambda: prior(log_density=NoisePathIntegral(), log_normalizer=0.0),
            "comes from an integral, which is normalised: leave log_normalizer out",
        ),
        (lambda: prior(log_normalizer=np.zeros(2)), r"must be a number, .* got shape \(2,\)"),
    ],
)
def test_what_does_not_fit_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()
