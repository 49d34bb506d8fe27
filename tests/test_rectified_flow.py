# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Straight paths between data and noise: velocities as denoisers, Euler steps, flow matching."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random

import numpyro_scores as ns
from numpyro_scores.objectives import DenoisingScoreMatching, FlowMatching, VelocityWeight
from numpyro_scores.processes import RectifiedFlow, VelocityPrediction

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)


@jax.tree_util.register_pytree_node_class
class GaussianVelocity:
    """E[z - x_0 | x_t] for data of N(mean, scale^2), by the covariance of both with x_t."""

    def __init__(self, mean, log_scale):
        self.mean, self.log_scale = mean, log_scale

    def __call__(self, x_t, t):
        variance = jnp.exp(2 * self.log_scale)
        gain = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2)
        return gain * (x_t - (1 - t) * self.mean) - self.mean

    def tree_flatten(self):
        return (self.mean, self.log_scale), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


EXACT = GaussianVelocity(2.0, np.log(0.5))


@pytest.mark.parametrize("data_at_one", [False, True])
def test_the_denoiser_of_the_exact_velocity_is_the_posterior_mean(x64, data_at_one):
    def other_way(x, s):
        return -EXACT(x, 1 - s)

    denoiser = VelocityPrediction(other_way if data_at_one else EXACT, data_at_one)
    for sigma in (0.01, 0.7, 300.0):
        x = 2.0 + np.array([1.5, -0.3]) * np.hypot(0.5, sigma)
        exact = (0.25 * x + sigma**2 * 2.0) / (0.25 + sigma**2)
        np.testing.assert_allclose(denoiser(x, sigma), exact, rtol=1e-9)


def test_a_step_of_ddim_is_a_step_of_euler_on_the_path(x64):
    process = RectifiedFlow()
    levels = np.asarray(ns.samplers.TimeSpacing()(process, process.sigma_min, 9))
    times = levels / (1 + levels)
    np.testing.assert_allclose(times[1:-1], np.linspace(1, process.t_min, 9)[1:-1], rtol=1e-12)
    np.testing.assert_allclose(process.time(process.noise_level(times)), times, rtol=1e-12)
    x_t = start = np.array([0.4, -1.1])
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        x_t = x_t + (t_next - t) * EXACT(x_t, t)
    x, step = start / (1 - times[0]), ns.samplers.DDIM(8).step
    for sigma, sigma_next in zip(levels[:-1], levels[1:], strict=True):
        x = step(VelocityPrediction(EXACT), x, sigma, sigma_next, np.zeros((1, 2)))
    np.testing.assert_allclose(x * process.scale(times[-1]), x_t, rtol=1e-9)


def test_25_modes_by_their_velocity_are_those_by_their_denoiser(x64):
    """Denoised points, and draws from the same start by the same levels."""
    means = 8.0 * np.stack(np.meshgrid(*[np.arange(-2, 3)] * 2), axis=-1).reshape(25, 2)

    def mixture(scale, variance, x, coefficient):
        """E[coefficient (x - scale m) + m] over the modes m, given x."""
        residuals = x - scale * means
        shares = jax.nn.softmax(-jnp.sum(residuals**2, axis=1) / (2 * variance))
        return shares @ (coefficient * residuals + means)

    def denoiser(x, sigma):
        return mixture(1.0, 1 + sigma**2, x, 1 / (1 + sigma**2))

    def velocity(x_t, t):
        variance = (1 - t) ** 2 + t**2
        return -mixture(1 - t, variance, x_t, (1 - 2 * t) / variance)

    process = RectifiedFlow(0.05, 0.995)
    levels = ns.VarianceExploding(process.sigma_min, process.sigma_max)
    of_flow = ns.DiffusionPrior(VelocityPrediction(velocity), process, 2)
    of_levels = ns.DiffusionPrior(denoiser, levels, 2)
    draws = of_levels.sample(KEY, (50,))
    assert len(np.unique(np.round(draws / 8), axis=0)) > 15
    np.testing.assert_allclose(of_flow.sample(KEY, (50,)), draws, atol=1e-8)
    x = 20 * random.normal(KEY, (50, 2))
    for sigma in (0.1, 3.0, 100.0):
        np.testing.assert_allclose(
            of_flow.denoise(x, sigma), of_levels.denoise(x, sigma), rtol=1e-9, atol=1e-9
        )


def test_the_least_loss_of_flow_matching_is_in_closed_form(x64):
    """
    Of standard normal data the variance of z - x_0 given x_t is 1 / (t^2 + (1 - t)^2), whose
    integral is that of arctan(2 t - 1); and a denoiser with the weight has the same loss.
    """
    process = RectifiedFlow(t_min=0.01, t_max=0.99)
    x = random.normal(KEY, (40_000, 1))
    prior = ns.DiffusionPrior(VelocityPrediction(GaussianVelocity(0.0, 0.0)), process, 1)
    found = FlowMatching(process)(prior, x, key=random.key(1))
    ends = np.arctan(2 * np.array([0.01, 0.99]) - 1)
    exact = np.diff(ends)[0] / 0.98
    np.testing.assert_allclose(found, exact, rtol=0.03)  # four standard errors
    as_denoiser = DenoisingScoreMatching(process, VelocityWeight())(prior, x, key=random.key(1))
    np.testing.assert_allclose(as_denoiser, np.pi / 2, rtol=0.03)
    worse = VelocityPrediction(GaussianVelocity(0.3, 0.0))
    assert FlowMatching(process)(worse, x, key=random.key(1)) > found * 1.02


def test_flow_matching_learns_the_density_of_the_data():
    data = 2.0 + 0.5 * random.normal(KEY, (4_000, 1))
    start = VelocityPrediction(GaussianVelocity(jnp.zeros(()), jnp.zeros(())))
    options = {"num_steps": 600, "batch_size": 200, "progress_bar": False}
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 600))
    fitted = ns.fit(start, FlowMatching(), data, key=KEY, optimizer=optimizer, **options).module
    prior = ns.DiffusionPrior(fitted, RectifiedFlow(), 1)
    points = jnp.array([[1.0], [2.3]])
    exact = -2 * (points[:, 0] - 2.0) ** 2 - np.log(0.5) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(prior.log_prob(points), exact, atol=0.15)
    # Only the velocity of the path is trained, by itself, too.
    alone = ns.fit(start.network, FlowMatching(), data, key=KEY, optimizer=optimizer, **options)
    np.testing.assert_allclose(alone.module.mean, fitted.network.mean, rtol=1e-5)


def test_bad_paths_are_told():
    with pytest.raises(ValueError, match=r"t_max must be below 1.*got 1"):
        RectifiedFlow(t_max=1.0)
    with pytest.raises(ValueError, match="t_min"):
        RectifiedFlow(t_min=0.0)
    with pytest.raises(TypeError, match=r"straight paths.*VarianceExploding"):
        FlowMatching(ns.VarianceExploding(0.1, 10.0))
    prior = ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), RectifiedFlow(), 2)
    with pytest.raises(ValueError, match=r"VelocityPrediction\(network\)"):
        FlowMatching()(prior, jnp.ones((3, 2)), key=KEY)
    with pytest.raises(ValueError, match=r"velocity v\(x_t, t\).*shape \(2,\)"):
        FlowMatching()(lambda x, t: x[:1], jnp.ones((3, 2)), key=KEY)
