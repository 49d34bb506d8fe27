# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Posterior kernels with a diffusion prior, against closed forms of Gaussians."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import draw, whitened
from infer.noise_scales import exact_noise, noise_model, two_looks
from jax import random

import numpyro_scores as ns
from numpyro_scores.infer.diffusion.moment_matching import matched_likelihood, solve
from numpyro_scores.infer.diffusion.posterior_sampling import denoised_likelihood
from numpyro_scores.infer.model import FlatModel

pytestmark = pytest.mark.usefixtures("quick_compilation")

D, SIGMA_MIN, NOISE = 3, 0.02, 0.4
PROCESS = ns.VarianceExploding(SIGMA_MIN, 20.0)
RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(D, D))
MEAN, COVARIANCE = RNG.normal(size=D), ROOT @ ROOT.T / D + 0.1 * np.eye(D)
OPERATOR = RNG.normal(size=(2, D))
Y = OPERATOR @ MEAN + np.array([1.0, -0.5])
EIGENVALUES, EIGENVECTORS = np.linalg.eigh(COVARIANCE)


def wiener(x, sigma):
    gain = EIGENVALUES / (EIGENVALUES + sigma**2)
    return MEAN + EIGENVECTORS @ (gain * (EIGENVECTORS.T @ (x - MEAN)))


PRIOR = ns.DiffusionPrior(wiener, PROCESS, D)


def linear(y, noise=NOISE):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(OPERATOR @ x, noise).to_event(1), obs=y)


def scaled(y):
    linear(y, numpyro.sample("noise", dist.HalfNormal(1.0)))


def posterior(noise_covariance, prior=COVARIANCE):
    """The mean and covariance of x for y = A x + noise."""
    a = OPERATOR.T @ np.linalg.inv(noise_covariance)
    covariance = np.linalg.inv(np.linalg.inv(prior) + a @ OPERATOR)
    return MEAN + covariance @ a @ (Y - OPERATOR @ MEAN), covariance


def check_moments(x, mean, covariance, mean_error=0.1, spectrum=(0.85, 1.17)):
    """
    In units of the posterior's standard deviations; the errors of 2,000 draws are 0.022 and 7%.
    """
    w = whitened(np.asarray(x, np.float64), mean, covariance)
    assert np.abs(w.mean(axis=0)).max() < mean_error
    found = np.linalg.eigvalsh(np.cov(w.T))
    assert spectrum[0] < found[0] and found[-1] < spectrum[1], found


def test_the_gradients_are_the_closed_forms_of_their_approximations(x64):
    z = {"x": jnp.array([0.3, -1.0, 2.0]), "noise": jnp.log(NOISE)}
    vector = jnp.append(z["noise"], z["x"])  # sites in alphabetical order
    is_prior = np.array([False, True, True, True])

    @jax.jit
    def both(sigma):
        said = FlatModel(scaled, (Y,), {}, like=z)
        matched = matched_likelihood(said, is_prior, vector, sigma, num_iterations=3)
        return denoised_likelihood(said, vector, sigma), matched

    for sigma in (0.05, 0.7, 10.0):
        jacobian = COVARIANCE @ np.linalg.inv(COVARIANCE + sigma**2 * np.eye(D))
        denoised = MEAN + jacobian @ (z["x"] - MEAN)
        residual = Y - OPERATOR @ denoised
        (found, gradient), (same, matched) = both(sigma)
        np.testing.assert_allclose(found, np.append(z["noise"], denoised), rtol=1e-12)
        np.testing.assert_allclose(same, found, rtol=1e-12)
        expected = jacobian.T @ OPERATOR.T @ residual / NOISE**2
        np.testing.assert_allclose(gradient[1:], expected, rtol=1e-9)
        spread = NOISE**2 * np.eye(2) + OPERATOR @ (sigma**2 * jacobian) @ OPERATOR.T
        expected = jacobian.T @ OPERATOR.T @ np.linalg.solve(spread, residual)
        np.testing.assert_allclose(matched, np.append(0, expected), rtol=1e-9)
        # So that the denoiser of the posterior is exact: E[x0 | x_sigma, y].
        precision = np.linalg.inv(COVARIANCE) + np.eye(D) / sigma**2
        precision += OPERATOR.T @ OPERATOR / NOISE**2
        linear_term = np.linalg.solve(COVARIANCE, MEAN) + z["x"] / sigma**2
        exact = np.linalg.solve(precision, linear_term + OPERATOR.T @ Y / NOISE**2)
        np.testing.assert_allclose(denoised + sigma**2 * matched[1:], exact, rtol=1e-9)


def test_conjugate_gradients_solve_and_stop_at_a_negative_curvature(x64):
    root = RNG.normal(size=(2, 5, 5))
    covariance, hessian = root @ np.swapaxes(root, 1, 2)
    g = RNG.normal(size=5)
    found = solve(lambda v: covariance @ v, lambda v: hessian @ v, g, 30)
    np.testing.assert_allclose(
        found, np.linalg.solve(np.eye(5) + hessian @ covariance, g), rtol=1e-6
    )
    # Of two measured directions one has a likelihood that curves the other way: it is left out.
    curvatures = jnp.array([1.0, -3.0])
    of_one = solve(lambda v: v, lambda v: curvatures * v, jnp.array([1.0, 0.0]), 5)
    np.testing.assert_allclose(of_one, [0.5, 0.0])
    np.testing.assert_array_equal(
        solve(lambda v: v, lambda v: curvatures * v, jnp.array([0.0, 1.0]), 5), 0
    )


@pytest.mark.slow
def test_moment_matching_is_exact_for_a_gaussian():
    kernel = ns.MomentMatching(linear, sampler=ns.Heun(25), num_iterations=3)
    state = draw(kernel, random.key(0), 2_000, None, Y)
    mean, covariance = posterior(NOISE**2 * np.eye(2))
    check_moments(state.z["x"], mean, covariance + SIGMA_MIN**2 * np.eye(D))
    assert set(np.unique(state.num_grad_evals)) == {25 * 2 * 14} and not np.any(state.diverging)


@pytest.mark.slow
def test_split_gibbs_has_the_stationary_law_of_its_coupling():
    """Every chain runs through a warmup, and 20 draws more; about 4 are as good as independent."""
    coupling = 0.5
    sampler = ns.Ancestral(num_steps=60)
    kernel = ns.SplitGibbs(linear, coupling=coupling, sampler=sampler)
    state = kernel.init(random.split(random.key(0), 2_000), 20, None, (Y,), {})

    def sample(state, _):
        return kernel.sample(state, (Y,), {}), state.coupling

    state, couplings = jax.jit(lambda state: jax.lax.scan(sample, state, None, 40))(state)
    half = np.geomspace(20.0, coupling, 11)
    np.testing.assert_allclose(couplings[1:12, 0], half, rtol=1e-5)
    np.testing.assert_allclose(couplings[12:], coupling, rtol=1e-5)
    assert not np.any(state.diverging)
    # The prior step ends at the smallest level.
    spread = NOISE**2 * np.eye(2) + (coupling**2 - SIGMA_MIN**2) * OPERATOR @ OPERATOR.T
    law = posterior(spread, COVARIANCE + SIGMA_MIN**2 * np.eye(D))
    check_moments(state.z["x"], *law)


def law(levels, start, step, num_noises):
    """
    The mean and covariance after affine steps `step(x, sigma, sigma_next, noise)`, without a draw.
    """
    noise = jnp.zeros((num_noises, D))

    def advance(carry, sigmas):
        mean, covariance = carry
        of_x, of_noise = jax.jacfwd(lambda x, noise: step(x, *sigmas, noise), (0, 1))(mean, noise)
        of_noise = of_noise.reshape(D, -1)
        covariance = of_x @ covariance @ of_x.T + of_noise @ of_noise.T
        return (step(mean, *sigmas, noise), covariance), None

    return jax.lax.scan(advance, start, (levels[:-1], levels[1:]))[0]


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1.0, NOISE])
def test_posterior_sampling_has_the_law_of_its_approximation(noise):
    sampler = ns.Ancestral(num_steps=100)
    state = draw(ns.DiffusionPosteriorSampling(linear), random.key(0), 2_000, None, Y, noise)

    def denoise(x, sigma):
        gain = EIGENVECTORS * (EIGENVALUES / (EIGENVALUES + sigma**2)) @ EIGENVECTORS.T
        denoised = MEAN + gain @ (x - MEAN)
        gradient = gain @ OPERATOR.T @ (Y - OPERATOR @ denoised) / noise**2
        return denoised + sigma**2 * gradient

    levels = sampler.spacing(PROCESS, SIGMA_MIN, 101)
    start = (jnp.asarray(MEAN), 20.0**2 * jnp.eye(D))
    mean, covariance = law(levels, start, partial(sampler.step, denoise), 1)
    check_moments(state.z["x"], mean, covariance)
    # It is not the posterior: draws spread too little.
    exact = posterior(noise**2 * np.eye(2))[1]
    ratios = np.linalg.eigvals(np.linalg.solve(exact, covariance))
    assert np.min(ratios.real) < 0.8


@pytest.mark.slow
def test_posterior_sampling_follows_a_stiff_likelihood():
    """A noise of 0.02: the gradient at middle levels is hundreds of times what a step can take."""
    noise = 0.02
    state = draw(ns.DiffusionPosteriorSampling(linear), random.key(0), 500, None, Y, noise)
    assert not np.any(state.diverging)
    residual = np.asarray(state.z["x"], np.float64) @ OPERATOR.T - Y
    scale = np.sqrt(noise**2 + SIGMA_MIN**2 * np.sum(OPERATOR**2, axis=1))
    assert np.sqrt(np.mean((residual / scale) ** 2)) < 3


def law_of_daps(noise, levels):
    def step(x, sigma, sigma_next, noises):
        shrunk = jnp.sqrt((EIGENVALUES + SIGMA_MIN**2) / (EIGENVALUES + sigma**2))
        centre = MEAN + EIGENVECTORS @ (shrunk * (EIGENVECTORS.T @ (x - MEAN)))
        covariance = jnp.linalg.inv(jnp.eye(D) / sigma**2 + OPERATOR.T @ OPERATOR / noise**2)
        mean = covariance @ (centre / sigma**2 + OPERATOR.T @ Y / noise**2)
        return mean + jnp.linalg.cholesky(covariance) @ noises[0] + sigma_next * noises[1]

    start = (jnp.asarray(MEAN), 20.0**2 * jnp.eye(D))
    return law(jnp.append(levels, 0.0), start, step, 2)


@pytest.mark.slow
def test_decoupled_annealing_has_the_law_of_its_approximation():
    kernel = ns.DAPS(linear, num_levels=20, num_steps=40, num_flow_steps=2)
    state = draw(kernel, random.key(0), 2_000, None, Y)
    check_moments(state.z["x"], *law_of_daps(NOISE, np.geomspace(20.0, SIGMA_MIN, 20)))
    # Without data, as documented:
    _, covariance = law_of_daps(1e6, np.geomspace(20.0, SIGMA_MIN, 50))
    ratios = np.diag(EIGENVECTORS.T @ covariance @ EIGENVECTORS) / EIGENVALUES
    np.testing.assert_allclose(ratios, 2.4, rtol=0.05)


@pytest.mark.slow
def test_decoupled_annealing_is_exact_for_a_prior_alike_in_all_directions():
    def model(y):
        x = numpyro.sample("x", ns.DiffusionPrior(alike, PROCESS, D))
        numpyro.sample("y", dist.Normal(OPERATOR @ x, NOISE).to_event(1), obs=y)

    def alike(x, sigma):
        return MEAN + (x - MEAN) / (1 + sigma**2)

    state = draw(ns.DAPS(model, num_levels=20, num_steps=40), random.key(0), 2_000, None, Y)
    check_moments(state.z["x"], *posterior(NOISE**2 * np.eye(2), np.eye(D)))
    assert not np.any(state.diverging)


# Kernel, draws, and what to allow: of the mean in standard deviations, and of their ratio.
OF_UNKNOWN_NOISE = {
    "DPS": (ns.DiffusionPosteriorSampling, 1, 1.2, (0.5, 0.8)),
    "MomentMatching": (ns.MomentMatching, 1, 0.8, (1.1, 1.5)),
    "DAPS": (ns.DAPS, 1, 0.5, (0.9, 1.3)),
    "SplitGibbs": (partial(ns.SplitGibbs, coupling=0.1), 80, 0.25, (0.85, 1.15)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, num_draws, mean_error, ratio", OF_UNKNOWN_NOISE.values(), ids=OF_UNKNOWN_NOISE
)
def test_an_unknown_noise_scale_moves_along(make, num_draws, mean_error, ratio):
    """Against quadrature; the biases are those of the docstrings."""
    y = two_looks(12, 0.5)
    mean, scale = exact_noise(y)
    kernel = make(noise_model)
    state = kernel.init(random.split(random.key(0), 1_000), num_draws // 2, None, (y,), {})

    def sample(_, state):
        return kernel.sample(state, (y,), {})

    state = jax.jit(lambda state: jax.lax.fori_loop(0, num_draws, sample, state))(state)
    found = np.exp(np.asarray(state.z["noise"], np.float64))
    assert abs(found.mean() - mean) < mean_error * scale
    assert ratio[0] < found.std() / scale < ratio[1]
    assert not np.any(state.diverging)


def two_processes(y):
    a = numpyro.sample("a", PRIOR)
    b = numpyro.sample("b", ns.DiffusionPrior(wiener, ns.VarianceExploding(0.1, 20.0), D))
    numpyro.sample("y", dist.Normal(OPERATOR @ (a + b), 1.0).to_event(1), obs=y)


def prior_with_a_latent_mean(y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    denoiser = partial(lambda mean, x, sigma: mean + (x - mean) / (1 + sigma**2), mean)
    x = numpyro.sample("x", ns.DiffusionPrior(denoiser, PROCESS, D))
    numpyro.sample("y", dist.Normal(OPERATOR @ x, 1.0).to_event(1), obs=y)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: ns.DAPS(prior_with_a_latent_mean), ValueError, r"'x' depends on \['mean'\]"),
        (lambda: ns.MomentMatching(two_processes), ValueError, "one process for"),
        (lambda: ns.DAPS(two_processes), ValueError, "one process for"),
        (lambda: ns.SplitGibbs(linear, coupling=0.01), ValueError, r"in \[0.02, 20.0\], got 0.01"),
        (lambda: ns.SplitGibbs(linear, coupling=-1.0), ValueError, "coupling must be"),
        (lambda: ns.SplitGibbs(linear, coupling=1.0, sampler=ns.Heun()), TypeError, "its noise"),
        (lambda: ns.DiffusionPosteriorSampling(linear, sampler=3), TypeError, "got 3"),
        (lambda: ns.MomentMatching(linear, num_iterations=0), ValueError, "num_iterations"),
    ],
)
def test_what_does_not_fit_is_told(make, error, message):
    with pytest.raises(error, match=message):
        make().init(random.key(0), 0, None, (Y,), {})


def test_a_model_without_a_prior_of_noise_levels_is_told():
    def model():
        numpyro.sample("x", dist.Normal(0, 1))

    with pytest.raises(ValueError, match="MomentMatching needs a noise-conditional prior"):
        ns.MomentMatching(model).init(random.key(0), 0, None, (), {})
