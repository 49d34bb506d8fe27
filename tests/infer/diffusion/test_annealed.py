# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Annealed Langevin dynamics: against exact answers where the denoiser is exact."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, draw, whitened
from infer.noise_scales import denoise_standard, exact_noise, noise_model, two_looks
from jax import random

import numpyro_scores as ns
from benchmarks.annealing import COVARIANCE, MEAN, OPERATOR, SIGMA_MIN, D, Y, model, posterior

# ---- a linear inverse problem with a Gaussian prior ----


@pytest.fixture(scope="module")
def linear_draws():
    """Draws of the linear model; one compiled program serves every noise scale."""
    cache = {}

    def draws(noise, **settings):
        key = tuple(settings.items())
        if key not in cache:
            kernel = ns.AnnealedLangevin(model, **settings)
            keys = random.split(random.key(1), 2_000)
            state = kernel.init(keys, 0, None, (Y, 1.0), {})
            sample = jax.jit(lambda state, noise: kernel.sample(state, (Y, noise), {}))
            cache[key] = sample, state
        sample, state = cache[key]
        return sample(state, noise)

    return draws


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    "noise, denoised", [(0.3, True), (1.0, True), (0.3, False), (1.0, False), (1e4, True)]
)
def test_posterior_of_a_linear_inverse_problem(linear_draws, noise, denoised):
    """
    Mean within 0.15 posterior standard deviations, variances within 18% in every direction (the
    sampling error of 2,000 draws is 0.02 and 9%). With noise 10^4 this is the prior.
    """
    state = linear_draws(noise, denoised=denoised)
    w = whitened(state.z["x"], *posterior(noise, denoised))
    assert np.abs(w.mean(axis=0)).max() < 0.15
    spectrum = np.linalg.eigvalsh(np.cov(w.T))
    assert 0.85 < spectrum[0] and spectrum[-1] < 1.18, spectrum
    assert not np.any(state.diverging)


@pytest.mark.slow
def test_a_small_noise_scale_needs_no_tuning_to_fit_the_data(linear_draws):
    """What is measured is found with noise 0.01: nothing explodes, no step size was given."""
    noise = 0.01
    x = linear_draws(noise).z["x"]
    # The likelihood is of the denoised value, whose posterior is Gaussian as well.
    operator = OPERATOR @ COVARIANCE @ np.linalg.inv(COVARIANCE + SIGMA_MIN**2 * np.eye(D))
    mean, covariance = posterior(noise, True)
    w = whitened(
        (np.asarray(x, np.float64) - MEAN) @ operator.T,
        operator @ (mean - MEAN),
        operator @ covariance @ operator.T,
    )
    assert np.abs(w).max() < 6
    spectrum = np.linalg.eigvalsh(np.cov(w.T))
    assert 0.8 < spectrum[0] and spectrum[-1] < 1.25, spectrum


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("noise", [1.0, 0.1, 0.01, 0.003])
def test_with_a_metric_by_the_data_a_small_noise_scale_costs_nothing(linear_draws, noise):
    """Standard deviations within 5%, and twice the sampling error of 0.016 beside it."""
    state = linear_draws(noise)
    mean, covariance = posterior(noise, True)
    variances, axes = np.linalg.eigh(covariance)
    w = (np.asarray(state.z["x"], np.float64) - mean) @ axes / np.sqrt(variances)
    np.testing.assert_allclose(w.std(axis=0), 1.0, atol=0.082)
    assert np.abs(w.mean(axis=0)).max() < 0.15
    assert np.all(state.num_grad_evals <= 1_500)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("noise", [0.1, 0.03, 0.01])
def test_a_small_noise_scale_needs_no_tuning_for_what_is_not_measured(linear_draws, noise):
    """Directions that the data say nothing about have the posterior's spread, with short steps."""
    draws = linear_draws(noise, metric=None)
    w = whitened(draws.z["x"], *posterior(noise, True))
    assert np.abs(w.mean(axis=0)).max() < 0.3
    spectrum = np.linalg.eigvalsh(np.cov(w.T))
    assert 0.7 < spectrum[0] and spectrum[-1] < 1.4, spectrum


# ---- an unknown noise scale ----


@pytest.mark.slow
def test_an_unknown_noise_scale_moves_along():
    """
    Its posterior mean within a tenth of its standard deviation, that within 10%. So many chains
    because what the compiler makes of a block with one entry depends on their number.
    """
    y = two_looks(12, 0.5)
    mean, scale = exact_noise(y)
    state = draw(ns.AnnealedLangevin(noise_model), random.key(0), 5_000, None, y)
    noise = np.exp(np.asarray(state.z["noise"], np.float64))
    assert abs(noise.mean() - mean) < 0.1 * scale
    np.testing.assert_allclose(noise.std(), scale, rtol=0.1)
    assert not np.any(state.diverging)


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 4])
def test_an_unknown_noise_scale_does_not_run_away(d):
    """Few data, so little holds it: above 6 its posterior probability is below 1e-8."""
    y = two_looks(d, 0.1)
    state = draw(ns.AnnealedLangevin(noise_model), random.key(0), 1_000, None, y)
    noise = np.exp(np.asarray(state.z["noise"], np.float64))
    mean, scale = exact_noise(y)
    assert noise.max() < 6
    assert abs(noise.mean() - mean) < 0.25 * scale
    np.testing.assert_allclose(noise.std(), scale, rtol=0.25)
    assert not np.any(state.diverging)


# ---- more than one prior ----


@pytest.mark.slow
def test_two_priors_in_a_plate():
    """y = a + b + noise, three times two entries: the joint posterior of each pair (a, b)."""

    def denoise_wide(x, sigma):
        return -1 + 4 * (x + 1) / (4 + sigma**2)

    def model(y):
        with numpyro.plate("points", 3):
            a = numpyro.sample(
                "a", ns.DiffusionPrior(denoise_standard, ns.VarianceExploding(0.02, 10.0), 2)
            )
            b = numpyro.sample(
                "b", ns.DiffusionPrior(denoise_wide, ns.VarianceExploding(0.05, 20.0), 2)
            )
            numpyro.sample("y", dist.Normal(a + b, 0.5).to_event(1), obs=y)

    y = np.array([[0.0, 1.0], [2.0, -3.0], [-1.5, 0.5]])
    state = draw(ns.AnnealedLangevin(model), random.key(0), 1_000, None, y)
    assert not np.any(state.diverging)
    prior = np.diag([1.0, 0.25])
    covariance = np.linalg.inv(prior + np.ones((2, 2)) / 0.25)
    spectra = []
    for i, j in np.ndindex(3, 2):
        mean = covariance @ (prior @ [0.0, -1.0] + y[i, j] / 0.25)
        w = whitened(np.stack([state.z["a"][:, i, j], state.z["b"][:, i, j]], -1), mean, covariance)
        assert np.abs(w.mean(axis=0)).max() < 0.2
        spectra.append(np.linalg.eigvalsh(np.cov(w.T)))
    np.testing.assert_allclose(np.mean(spectra, axis=0), 1.0, atol=0.15)


# ---- one anneal a draw ----


@pytest.fixture(scope="module")
def short():
    """A short anneal of the model with unknown noise: 300 chains, and how to draw from them."""
    y = two_looks(3, 0.5)
    kernel = ns.AnnealedLangevin(noise_model, num_levels=5, num_steps=1)
    state = kernel.init(random.split(random.key(0), 300), 0, None, (y,), {})
    return kernel, state, jax.jit(lambda state: kernel.sample(state, (y,), {}))


@pytest.mark.slow
def test_draws_are_independent(short):
    """Of the draw before: a correlation of 0.1 would be found at 4 standard errors."""
    _, state, sample = short
    draws = []
    for _ in range(6):
        state = sample(state)
        draws.append(state.z)
    for name in ("x", "noise"):
        chains = np.stack([z[name].reshape(300, -1)[:, 0] for z in draws])
        correlation = np.corrcoef(chains[:-1].ravel(), chains[1:].ravel())[0, 1]
        assert_within(correlation, 0.0, 1 / np.sqrt(5 * 300))


def test_an_anneal_starts_from_the_prior_whatever_the_state(short):
    _, state, sample = short
    elsewhere = state._replace(z=jax.tree.map(lambda a: a + 100, state.z))
    jax.tree.map(np.testing.assert_array_equal, sample(state).z, sample(elsewhere).z)


@pytest.mark.parametrize(
    "integrator, largest",
    # Without a momentum the anneal lags a little behind.
    [
        pytest.param(ns.OBABO(), 1.2, marks=pytest.mark.slow),
        pytest.param(ns.UBU(), 1.2, marks=pytest.mark.slow),
        (ns.integrators.SKROCK(3), 1.5),
    ],
    ids=["OBABO", "UBU", "SKROCK"],
)
def test_other_integrators_find_the_posterior(linear_draws, integrator, largest):
    """As the default does, above; and count their gradients."""
    state = linear_draws(1.0, integrator=integrator, metric=None)
    w = whitened(state.z["x"], *posterior(1.0, True))
    spectrum = np.linalg.eigvalsh(np.cov(w.T))
    assert np.abs(w.mean(axis=0)).max() < 0.15
    assert 0.8 < spectrum[0] and spectrum[-1] < largest, spectrum
    work = 100 * (5 * integrator.num_grad_evals + 1) + 2 * (20 + 2 * 99)
    assert set(np.unique(state.num_grad_evals)) == {work}


@pytest.mark.slow
def test_noise_levels_may_be_given(short):
    _, state, sample = short
    given = ns.AnnealedLangevin(
        noise_model, noise_levels=np.geomspace(20.0, SIGMA_MIN, 5), num_steps=1
    )
    new = draw(given, random.key(0), 300, None, two_looks(3, 0.5))
    np.testing.assert_allclose(new.z["x"], sample(state).z["x"], rtol=1e-3, atol=1e-3)
