# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Log densities from scores: where the rules are exact, and how far off they are elsewhere."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from scipy import stats

from numpyro_scores.densities.flow import ProbabilityFlow, probability_flow
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.noise_path import NoisePathIntegral, mean_at_sigma_max
from numpyro_scores.densities.traces import ExactTrace, HutchinsonTrace

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIGMA_MIN, SIGMA_MAX = 0.02, 500.0
RULES = [NoisePathIntegral, ProbabilityFlow]


@dataclass(frozen=True)
class Mixture:
    """Equal shares of `N(mean, variance I)`, and what noise makes of them."""

    means: np.ndarray
    variance: float

    def _log_shares(self, x, sigma):
        return -jnp.sum((x - self.means) ** 2, axis=-1) / (2 * (self.variance + sigma**2))

    def log_density(self, x, sigma):
        shares, dim = self.means.shape
        log_scale = jnp.log(2 * jnp.pi * (self.variance + sigma**2))
        return logsumexp(self._log_shares(x, sigma)) - jnp.log(shares) - dim / 2 * log_scale

    def denoiser(self, x, sigma):
        shrunk = self.variance / (self.variance + sigma**2) * (x - self.means)
        return jax.nn.softmax(self._log_shares(x, sigma)) @ (self.means + shrunk)

    def draws(self):
        """A point of each mode."""
        noise = np.random.default_rng(1).normal(size=self.means.shape)
        return self.means + np.sqrt(self.variance) * noise


def five_modes(dim, variance=0.25):
    return Mixture(np.random.default_rng(0).normal(scale=4.0, size=(5, dim)), variance)


MEAN = np.array([1.0, -2.0, 0.5])
COVARIANCE = np.array([[1.0, 0.6, 0.1], [0.6, 2.0, -0.3], [0.1, -0.3, 0.5]])
VARIANCES, AXES = np.linalg.eigh(COVARIANCE)
X = np.array([0.3, -1.4, 2.0])


def wiener(x, sigma):
    """The denoiser of a Gaussian."""
    return MEAN + AXES * (VARIANCES / (VARIANCES + sigma**2)) @ AXES.T @ (x - MEAN)


def gaussian_log_density(x, sigma):
    return stats.multivariate_normal(MEAN, COVARIANCE + sigma**2 * np.eye(3)).logpdf(x)


# The line integral.


@pytest.mark.parametrize("num_nodes", [1, 2, 5])
def test_the_line_integral_is_exact_below_degree_two_num_nodes(x64, num_nodes):
    reference, x = np.array([0.3]), np.array([1.7])

    def difference(power):
        return LineIntegral(num_nodes)(lambda x: -(x**power), reference, x)

    def exact(power):
        return (0.3 ** (power + 1) - 1.7 ** (power + 1)) / (power + 1)

    powers = np.arange(2 * num_nodes)
    np.testing.assert_allclose([difference(p) for p in powers], exact(powers), rtol=1e-14)
    assert abs(difference(2 * num_nodes) - exact(2 * num_nodes)) > 1e-7


def test_the_line_integral_of_a_quartic_energy(x64):
    difference = LineIntegral(num_nodes=2)(lambda x: -(x**3), jnp.array([0.3]), jnp.array([1.7]))
    np.testing.assert_allclose(-difference, 2.086, rtol=1e-14)


def test_the_line_integral_of_a_score_is_the_difference_of_log_densities(x64):
    # Points of another shape than a vector, not all in one mode.
    mixture = Mixture(np.array([[-1.0, 0.0, 0.0, 1.0], [2.0, 1.0, 0.0, 0.0]]), variance=1.0)

    def log_density(x):
        return mixture.log_density(x.ravel(), 0.0)

    x, reference = np.array([[-1.5, 0.5], [0.3, 2.0]]), np.array([[1.0, 1.0], [-1.0, 0.2]])
    difference = jax.jit(partial(LineIntegral(64), jax.grad(log_density)))(reference, x)
    expected = log_density(x) - log_density(reference)
    np.testing.assert_allclose(difference, expected, rtol=1e-12)


def test_the_line_integral_of_a_rotation_is_the_value_along_the_line(x64):
    # No gradient field: around a loop its integral is twice the area, from r to x it is r cross x.
    reference, x = np.array([1.0, 0.5]), np.array([-0.3, 2.0])
    value = LineIntegral(1)(lambda x: jnp.array([-x[1], x[0]]), reference, x)
    np.testing.assert_allclose(value, np.cross([*reference, 0], [*x, 0])[2], rtol=1e-14)


# Normalised log densities of a denoiser.


def largest_error(rule, mixture, points):
    """In nats, at the smallest noise level."""

    @jax.jit
    @jax.vmap
    def error(x):
        found = rule(mixture.denoiser, x, SIGMA_MIN, SIGMA_MAX)
        return jnp.abs(found - mixture.log_density(x, SIGMA_MIN))

    return error(points).max()


@pytest.mark.parametrize("dim, variance", [(2, 0.25), (8, 0.25), (64, 0.05)])
def test_the_noise_path_integral_is_right_in_modes_and_between_them(x64, dim, variance):
    mixture = five_modes(dim, variance)
    centre = mixture.means.mean(0)
    between = (mixture.means[0] + mixture.means[1]) / 2
    points = np.concatenate([mixture.means, mixture.draws(), [centre, between]])
    assert largest_error(NoisePathIntegral(), mixture, points) < 0.01


def test_more_nodes_make_the_noise_path_integral_exact(x64):
    mixture = five_modes(8)
    assert largest_error(NoisePathIntegral(num_nodes=64), mixture, mixture.draws()) < 1e-5


@pytest.mark.parametrize("dim", [2, 8])
def test_the_probability_flow_is_right_in_modes(x64, dim):
    mixture = five_modes(dim)
    assert largest_error(ProbabilityFlow(), mixture, mixture.draws()) < 0.002


@pytest.mark.parametrize("rule", [NoisePathIntegral(128), ProbabilityFlow(1024)])
@pytest.mark.parametrize("sigma", [0.02, 3.0, SIGMA_MAX])
def test_a_gaussian_has_its_log_density(x64, rule, sigma):
    # What is left is the expansion at the largest noise level, of order (C / sigma_max^2)^2.
    found = jax.jit(rule, static_argnums=0)(wiener, X, sigma, SIGMA_MAX)
    np.testing.assert_allclose(found, gaussian_log_density(X, sigma), rtol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_a_log_density_is_also_right_at_moderate_largest_noise(x64, rule):
    # At sigma_max = 10 the expansion is off by tr((C / sigma_max^2)^2) / 4 and as much in the mean.
    found = jax.jit(rule(128), static_argnums=0)(wiener, X, 0.02, 10.0)
    np.testing.assert_allclose(found, gaussian_log_density(X, 0.02), atol=5e-4)


@pytest.mark.parametrize("rule", [NoisePathIntegral(8), ProbabilityFlow(8)])
def test_points_of_any_shape_have_the_log_density_of_their_entries(x64, rule):
    @jax.jit
    def log_density(x):
        def denoiser(x, sigma):
            return wiener(x.ravel(), sigma).reshape(x.shape)

        return rule(denoiser, x, 0.1, SIGMA_MAX)

    np.testing.assert_allclose(log_density(X.reshape(3, 1)), log_density(X), rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_the_log_density_with_random_probes_is_unbiased(x64, rule):
    # 4,000 seeds: a mean that is off by five standard errors is found.
    def log_density(seed):
        return rule(8, HutchinsonTrace(1, seed))(wiener, X, 0.1, SIGMA_MAX)

    found = jax.jit(jax.vmap(log_density))(jnp.arange(4000))
    exact = jax.jit(partial(rule(8), wiener))(X, 0.1, SIGMA_MAX)
    standard_error = found.std() / np.sqrt(len(found))
    assert 0.001 < standard_error < 0.1
    assert abs(found.mean() - exact) < 5 * standard_error


def traces_used(monkeypatch, rule, dim):
    used = set()

    def spy(self, f, x):
        used.add(self)
        return f(x), jnp.zeros(())

    for estimator in (ExactTrace, HutchinsonTrace):
        monkeypatch.setattr(estimator, "__call__", spy)
    jax.eval_shape(lambda x: rule(lambda x, sigma: x, x, 0.1, SIGMA_MAX), np.zeros(dim))
    return used


@pytest.mark.parametrize("rule", RULES)
def test_the_trace_is_exact_up_to_256_dimensions_unless_told_otherwise(monkeypatch, rule):
    assert traces_used(monkeypatch, rule(), 256) == {ExactTrace()}
    assert traces_used(monkeypatch, rule(), 257) == {HutchinsonTrace(num_probes=32)}
    for trace in (ExactTrace(), HutchinsonTrace(num_probes=3, seed=1)):
        assert traces_used(monkeypatch, rule(trace=trace), 257) == {trace}


def test_the_mean_at_the_largest_noise_level_is_that_of_the_data(x64):
    for sigma_max, error in [(10.0, 2e-3), (100.0, 2e-7)]:
        found = mean_at_sigma_max(wiener, X, sigma_max)
        np.testing.assert_allclose(found, MEAN, atol=error)


# The probability flow.


def flow_error(sigma_from, sigma_to, num_steps):
    """Distance from the exact map of a Gaussian, `(C + s2^2)^(1/2) (C + s1^2)^(-1/2)`."""
    found = probability_flow(wiener, X, sigma_from, sigma_to, num_steps)
    scale = np.sqrt((VARIANCES + sigma_to**2) / (VARIANCES + sigma_from**2))
    exact = MEAN + AXES * scale @ AXES.T @ (X - MEAN)
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("sigma_from, sigma_to", [(0.02, 50.0), (50.0, 0.02)])
def test_the_probability_flow_of_a_gaussian_is_its_linear_map(x64, sigma_from, sigma_to):
    assert flow_error(sigma_from, sigma_to, 1000) < 1e-9
    # The fourth order: half the step, a sixteenth of the error.
    ratio = flow_error(sigma_from, sigma_to, 50) / flow_error(sigma_from, sigma_to, 100)
    np.testing.assert_allclose(ratio, 16, rtol=0.15)


def test_the_probability_flow_goes_back_where_it_came_from(x64):
    mixture = five_modes(2)

    @partial(jax.vmap, in_axes=(0, None, None))
    def carried(x, sigma_from, sigma_to):
        return probability_flow(mixture.denoiser, x, sigma_from, sigma_to, 200)

    there = carried(mixture.draws(), 0.02, 5.0)
    np.testing.assert_allclose(carried(there, 5.0, 0.02), mixture.draws(), atol=1e-4)


@pytest.mark.parametrize(
    "rule, name",
    [(LineIntegral, "num_nodes"), (NoisePathIntegral, "num_nodes"), (ProbabilityFlow, "num_steps")],
)
@pytest.mark.parametrize("count", [0, 2.0, True])
def test_a_bad_number_of_nodes_is_told(rule, name, count):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, got {count!r}"):
        rule(count)
