# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Annealed Langevin dynamics: against exact answers where the denoiser is exact."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, draw, whitened
from jax import random
from scipy import stats

import numpyro_scores as ns
from numpyro_scores.infer._block_langevin import BlockLangevin
from numpyro_scores.infer._block_steps import Blocks

# ---- two points at +-(5, 5): how much of the large one is found ----

POINTS, WEIGHTS = np.array([[5.0, 5.0], [-5.0, -5.0]]), np.array([0.8, 0.2])
PROCESS = ns.VarianceExploding(sigma_min=1.0, sigma_max=20.0)
NUM_CHAINS = 6_000


def denoise_points(x, sigma):
    logits = jnp.log(WEIGHTS) - jnp.sum((x - POINTS) ** 2, -1) / (2 * sigma**2)
    return jax.nn.softmax(logits) @ POINTS


def two_points():
    numpyro.sample("x", ns.DiffusionPrior(denoise_points, PROCESS, 2))


def share_of_the_large_mode(x):
    return np.mean(np.sum(np.asarray(x), axis=-1) > 0)


def exact_share(density, levels, num_steps):
    """
    The share after `num_steps` Euler-Maruyama steps of size 0.05 sigma^2 at each level, without
    Monte Carlo: the score depends on (x + y) / sqrt(2) alone, whose density moves on a grid.
    """
    u = np.arange(-110.0, 110.0, 0.25)
    mass = density(u) / np.sum(density(u))
    centres = POINTS.sum(axis=1) / np.sqrt(2)
    for sigma in levels:
        h = 0.05 * sigma**2
        weights = WEIGHTS * stats.norm.pdf(u[:, None], centres, sigma)
        denoised = (weights @ centres) / np.maximum(weights.sum(axis=1), 1e-300)
        mean = u + h * (denoised - u) / sigma**2
        transition = stats.norm.pdf(u, mean[:, None], np.sqrt(2 * h))
        transition /= transition.sum(axis=1, keepdims=True)
        for _ in range(num_steps):
            mass = mass @ transition
    return mass[u > 0].sum() + mass[u == 0].sum() / 2


@pytest.mark.slow
def test_share_of_the_large_mode_with_the_published_settings():
    """Ten levels of 100 steps (Song & Ermon's epsilon 0.1 is a step of 0.05) lose a little."""
    kernel = ns.AnnealedLangevin(
        two_points, step_size=0.05, num_levels=10, num_steps=100, integrator=ns.EulerMaruyama()
    )
    state = draw(kernel, random.key(0), NUM_CHAINS)
    exact = exact_share(lambda u: stats.norm.pdf(u, 0, 20), np.geomspace(20, 1, 10), 100)
    assert abs(exact - 0.781) < 0.002
    assert_within(share_of_the_large_mode(state.z["x"]), exact, np.sqrt(0.16 / NUM_CHAINS))
    assert set(np.unique(state.num_grad_evals)) == {10 * (100 + 1)}


@pytest.mark.slow
def test_share_of_the_large_mode_without_annealing():
    """Langevin dynamics at the smallest level alone stays in the basin where it started."""

    def potential_fn(x):
        return -jax.scipy.special.logsumexp(jnp.log(WEIGHTS) - jnp.sum((x - POINTS) ** 2, -1) / 2)

    z = random.uniform(random.key(0), (NUM_CHAINS, 2), minval=-8, maxval=8)
    kernel = ns.ULA(potential_fn=potential_fn, step_size=0.05, num_steps=200)
    share = share_of_the_large_mode(draw(kernel, random.key(1), NUM_CHAINS, z).z)
    edge = 8 * np.sqrt(2)
    exact = exact_share(lambda u: np.maximum(edge - np.abs(u), 0), [1.0], 200)
    assert abs(exact - 0.508) < 0.002
    assert_within(share, exact, np.sqrt(0.25 / NUM_CHAINS))


def test_share_of_the_large_mode_by_default():
    """More levels lose less: the 0.8 of the truth within 0.021; measured 0.798 +- 0.002."""
    state = draw(ns.AnnealedLangevin(two_points), random.key(0), NUM_CHAINS)
    assert_within(share_of_the_large_mode(state.z["x"]), 0.8, np.sqrt(0.16 / NUM_CHAINS))
    assert not np.any(state.diverging)


# ---- a linear inverse problem with a Gaussian prior ----

D, SIGMA_MIN = 4, 0.02
RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(D, D))
MEAN, COVARIANCE = RNG.normal(size=D), ROOT @ ROOT.T / D + 0.1 * np.eye(D)
OPERATOR = RNG.normal(size=(2, D))
Y = OPERATOR @ (MEAN + np.linalg.cholesky(COVARIANCE) @ RNG.normal(size=D))
EIGENVALUES, EIGENVECTORS = np.linalg.eigh(COVARIANCE)


def denoise_gaussian(x, sigma):
    gain = EIGENVALUES / (EIGENVALUES + sigma**2)
    return MEAN + EIGENVECTORS @ (gain * (EIGENVECTORS.T @ (x - MEAN)))


GAUSSIAN_PRIOR = ns.DiffusionPrior(denoise_gaussian, ns.VarianceExploding(SIGMA_MIN, 20.0), D)


def linear_model(y, noise):
    x = numpyro.sample("x", GAUSSIAN_PRIOR)
    numpyro.sample("y", dist.Normal(OPERATOR @ x, noise).to_event(1), obs=y)


def exact_posterior(noise, denoised):
    """Of the smallest level: prior N(m, C + sigma^2), likelihood of the denoised value or not."""
    prior = np.linalg.inv(COVARIANCE + SIGMA_MIN**2 * np.eye(D))
    gain = COVARIANCE @ prior if denoised else np.eye(D)
    a = OPERATOR @ gain / noise
    covariance = np.linalg.inv(prior + a.T @ a)
    return MEAN + covariance @ a.T @ (Y - OPERATOR @ MEAN) / noise, covariance


@pytest.fixture(scope="module")
def linear_draws():
    """Draws of the linear model; one compiled program serves every noise scale."""
    cache = {}

    def draws(noise, **settings):
        key = tuple(settings.items())
        if key not in cache:
            kernel = ns.AnnealedLangevin(linear_model, **settings)
            keys = random.split(random.key(1), 2_000)
            state = kernel.init(keys, 0, None, (Y, 1.0), {})
            sample = jax.jit(lambda state, noise: kernel.sample(state, (Y, noise), {}))
            cache[key] = sample, state
        sample, state = cache[key]
        return sample(state, noise)

    return draws


@pytest.mark.parametrize(
    "noise, denoised", [(0.3, True), (1.0, True), (0.3, False), (1.0, False), (1e4, True)]
)
def test_posterior_of_a_linear_inverse_problem(linear_draws, noise, denoised):
    """
    Mean within 0.15 posterior standard deviations, variances within 18% in every direction (the
    sampling error of 2,000 draws is 0.02 and 9%). With noise 10^4 this is the prior.
    """
    state = linear_draws(noise, denoised=denoised)
    w = whitened(state.z["x"], *exact_posterior(noise, denoised))
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
    mean, covariance = exact_posterior(noise, True)
    w = whitened(
        (np.asarray(x, np.float64) - MEAN) @ operator.T,
        operator @ (mean - MEAN),
        operator @ covariance @ operator.T,
    )
    assert np.abs(w).max() < 6
    spectrum = np.linalg.eigvalsh(np.cov(w.T))
    assert 0.8 < spectrum[0] and spectrum[-1] < 1.25, spectrum


@pytest.mark.parametrize("noise", [0.1, 0.03, 0.01])
def test_a_small_noise_scale_needs_no_tuning_for_what_is_not_measured(linear_draws, noise):
    """Directions that the data say nothing about have the posterior's spread too."""
    w = whitened(linear_draws(noise).z["x"], *exact_posterior(noise, True))
    assert np.abs(w.mean(axis=0)).max() < 0.3
    spectrum = np.linalg.eigvalsh(np.cov(w.T))
    assert 0.7 < spectrum[0] and spectrum[-1] < 1.4, spectrum


GRID = 8.0 * np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), -1).reshape(-1, 2)
CENTRES = np.tile(GRID, 4)


def denoise_grid(x, sigma):
    variance = 1 + sigma**2
    mean = jax.nn.softmax((CENTRES @ x - jnp.sum(CENTRES**2, 1) / 2) / variance) @ CENTRES
    return mean + (x - mean) / variance


@pytest.mark.slow
def test_a_datum_at_the_edge_of_the_prior_throws_no_chain_out():
    """
    There the likelihood of the denoised value is a steep wall, which steps that were chosen in
    front of it would leave with a momentum of hundreds.
    """
    process = ns.VarianceExploding(sigma_min=0.05, sigma_max=200.0)

    def model(y):
        x = numpyro.sample("x", ns.DiffusionPrior(denoise_grid, process, 8))
        numpyro.sample("y", dist.Normal(jnp.mean(x[::2]), 0.1), obs=y)

    x = draw(ns.AnnealedLangevin(model), random.key(0), 40, None, -16.0).z["x"]
    assert np.abs(x).max() < 16 + 5


# ---- an unknown noise scale ----


def denoise_standard(x, sigma):
    return x / (1 + sigma**2)


def noise_model(y):
    d = y.shape[-1]
    prior = ns.DiffusionPrior(denoise_standard, ns.VarianceExploding(SIGMA_MIN, 20.0), d)
    x = numpyro.sample("x", prior)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x, noise).expand(y.shape).to_event(2), obs=y)


def two_looks(d, noise):
    """Each entry of x, standard normal, is measured twice."""
    rng = np.random.default_rng(1)
    return rng.normal(size=d) + noise * rng.normal(size=(2, d))


def exact_noise(y):
    """Posterior mean and standard deviation of the noise scale, by quadrature."""
    noise = np.linspace(0.01, 5, 5_000)
    half_sum, half_difference = y.sum(axis=0) / 2, (y[0] - y[1]) / 2
    log_density = stats.halfnorm.logpdf(noise)
    log_density += stats.norm.logpdf(half_difference[:, None], 0, noise / np.sqrt(2)).sum(axis=0)
    log_density += stats.norm.logpdf(half_sum[:, None], 0, np.sqrt(1 + noise**2 / 2)).sum(axis=0)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = weights @ noise
    return mean, np.sqrt(weights @ (noise - mean) ** 2)


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
def test_an_unknown_noise_scale_does_not_run_away():
    """Few data, so little holds it: above 10 its posterior probability is below 1e-15."""
    y = two_looks(4, 0.1)
    state = draw(ns.AnnealedLangevin(noise_model), random.key(0), 1_000, None, y)
    noise = np.exp(np.asarray(state.z["noise"], np.float64))
    mean, scale = exact_noise(y)
    assert noise.max() < 10
    assert abs(noise.mean() - mean) < 0.25 * scale
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


@dataclass(frozen=True)
class FrictionOfAStep(ns.integrators.UnderdampedIntegrator):
    """Its position is the friction of a step, its momentum the time step."""

    num_noises: ClassVar[int] = 3

    def step(self, state, noise, gradient, step_size, friction):
        assert noise.shape == (3, *state.x.shape)
        step_size = jnp.broadcast_to(step_size, state.x.shape)
        return state._replace(x=friction * step_size, memory=step_size)


@pytest.mark.parametrize(
    "settings, friction", [({}, 0.2), ({"friction": 0.7}, 0.7), ({"step_size": 0.1}, 0.2)], ids=str
)
def test_the_friction_is_that_of_a_step_whatever_the_step_size(settings, friction):
    kernel = ns.AnnealedLangevin(
        noise_model, integrator=FrictionOfAStep(), num_levels=3, num_steps=2, **settings
    )
    y = two_looks(3, 0.5)
    state = draw(kernel, random.key(0), 2, None, y)
    for leaf in jax.tree.leaves(state.z):
        np.testing.assert_allclose(leaf, friction, rtol=1e-6)


def test_a_block_that_must_not_move_has_the_friction_of_the_others():
    blocks = Blocks(np.array([0, 1]), np.array([False, False]))
    langevin = BlockLangevin(blocks, num_steps=1, integrator=FrictionOfAStep())
    x = jnp.ones(2)
    start = ns.integrators.IntegratorState(x, x, x)
    end = langevin._step(start, random.key(0), jnp.zeros_like, jnp.array([0.0, 0.02]), 0.2)
    np.testing.assert_allclose(end.x, 0.2, rtol=1e-6)
    np.testing.assert_allclose(end.memory, [0.0, 0.2], rtol=1e-6, atol=1e-15)


def test_a_wall_that_the_steps_were_not_chosen_for_throws_no_chain_out():
    """The step is right for x^2 / 2; below -1 the force is a thousand, and a step of it 500."""

    def gradient(x):
        return x - 1e3 * jax.nn.sigmoid(-20 * (x + 1))

    langevin = BlockLangevin(Blocks(np.array([0]), np.array([False])), num_steps=10)

    def end(key):
        key_noise, key_directions, key_steps = random.split(key, 3)
        walk = langevin.start(jnp.zeros(1), key_noise, key_directions)
        return langevin.run(key_steps, walk, gradient, 1.0)[0].x

    x = jax.jit(jax.vmap(end))(random.split(random.key(0), 200))
    assert np.abs(x).max() < 10


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
    state = linear_draws(1.0, integrator=integrator)
    w = whitened(state.z["x"], *exact_posterior(1.0, True))
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
