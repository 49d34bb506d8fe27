# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Replicas that swap along the probability flow of a prior with two modes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, mean_and_error
from infer.replicas import run
from jax import lax, random
from numpyro.infer import NUTS
from scipy import stats

import numpyro_scores as ns
from numpyro_scores.infer.noise_paths import LevelOnPath, NoisePaths
from numpyro_scores.infer.path_widths import Widths
from numpyro_scores.infer.swaps import even_odd_partners, swap

pytestmark = pytest.mark.usefixtures("quick_compilation")

POINTS, WEIGHTS, WIDTH = np.array([-3.0, 3.0]), np.array([0.7, 0.3]), 0.5
LOG_SCALE = np.log(1.5), 0.4


def modes_denoiser(x, sigma):
    variance = WIDTH**2 + sigma**2
    shares = jax.nn.softmax(jnp.log(WEIGHTS) - (x - POINTS) ** 2 / (2 * variance))
    mean = jnp.sum(shares * POINTS, keepdims=True)
    return mean + WIDTH**2 / variance * (x - mean)


def modes_model(y):
    """Two modes, a datum between them, and an unknown noise that is carried along."""
    x = numpyro.sample("x", ns.DiffusionPrior(modes_denoiser, ns.VarianceExploding(0.05, 20.0), 1))
    scale = numpyro.sample("scale", dist.LogNormal(*LOG_SCALE))
    numpyro.sample("y", dist.Normal(x[0], scale), obs=y)


def exact_of_modes(y):
    """Mass of the right mode, mean and variance of the logarithm of the noise, by quadrature."""
    x, log_scale = np.meshgrid(np.linspace(-6, 6, 601), np.linspace(-1.5, 2.5, 401))
    sd = np.sqrt(WIDTH**2 + 0.05**2)
    prior = sum(w * stats.norm.pdf(x, m, sd) for w, m in zip(WEIGHTS, POINTS, strict=True))
    mass = prior * stats.norm.pdf(log_scale, *LOG_SCALE) * stats.norm.pdf(y, x, np.exp(log_scale))
    mass /= mass.sum()
    mean = np.sum(mass * log_scale)
    return np.sum(mass * (x > 0)), mean, np.sum(mass * (log_scale - mean) ** 2)


PRIOR = ns.DiffusionPrior(
    modes_denoiser, ns.VarianceExploding(0.05, 20.0), 1, sampler=ns.Multistep(num_steps=16)
)


def point_model(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x[0], 1.0), obs=y)


GRID = jnp.linspace(-50, 50, 20_001)


def masses_of_level(paths, level):
    """Of the points of the grid, its likelihood as the paths have it."""
    sd = jnp.sqrt(WIDTH**2 + level.sigma**2)
    log_prior = jax.nn.logsumexp(
        jnp.log(WEIGHTS) - (GRID[:, None] - POINTS) ** 2 / (2 * sd**2), axis=1
    )
    energies = jax.vmap(lambda x: paths.energy(level, {"x": x[None]}))(GRID)
    return jax.nn.softmax(log_prior - energies)


def test_swaps_by_two_steps_leave_exact_draws_of_two_modes_exact():
    """Eight rounds of them and no other move, of a datum between the modes."""
    n, rungs = 10_000, jnp.array([0.05, 0.5, 1.2, 2.5, 8.0])
    paths = NoisePaths(point_model, 2, (0.5,), {}, {"x": jnp.zeros(1)})
    widths = Widths(jnp.log(rungs), {"y": jnp.array([0.0, 0.12, 0.21, 3.0, 7.0])})

    @jax.jit
    def found(key):
        masses = lax.map(lambda rung: masses_of_level(paths, LevelOnPath(rung, widths)), rungs)
        key_start, key = random.split(key)
        uniform = random.uniform(key_start, (len(rungs), n))
        start = jax.vmap(lambda u, p: GRID[jnp.searchsorted(jnp.cumsum(p), u)])(uniform, masses)

        def chain(x, keys):
            def one_round(x, row):
                i, key = row
                partner = even_odd_partners(i, len(rungs))

                def propose(x, other, *sigmas):
                    levels = (LevelOnPath(sigma, widths) for sigma in sigmas)
                    z, share = paths.swapped({"x": x}, {"x": other}, *levels)
                    return z["x"], share

                proposal, share = jax.vmap(propose)(x, x[partner], rungs, rungs[partner])
                source, accept_prob = swap(key, share + share[partner], partner)
                return jnp.where((source != partner)[:, None], x, proposal), accept_prob

            x, accept_prob = lax.scan(one_round, x[:, None], (jnp.arange(8), keys))
            return x[:, 0], jnp.mean(accept_prob, axis=0)

        keys = random.split(key, (n, 8))
        return masses, *jax.vmap(chain)(start.T, keys)

    masses, x, accept_prob = map(np.asarray, found(random.key(0)))
    assert np.mean(accept_prob) > 0.4
    x, grid = x.astype(np.float64), np.asarray(GRID, np.float64)
    for k, mass in enumerate(masses.astype(np.float64)):
        mean = mass @ grid
        sd = np.sqrt(mass @ (grid - mean) ** 2)
        right = mass @ (grid > 0)
        assert_within(np.mean(x[:, k] > 0), right, np.sqrt(right * (1 - right) / n))
        assert_within(np.mean(x[:, k]), mean, sd / np.sqrt(n))
        np.testing.assert_allclose(np.std(x[:, k]), sd, rtol=0.03)


def test_replicas_start_where_the_data_pick_one_of_draws_of_the_prior():
    """All modes, not the one that is next to a common start."""
    y, n, rungs = jnp.asarray(0.5), 500, (0.05, 1.0, 20.0)
    kernel = ns.ReplicaExchange(ns.ULA(point_model), ns.NoiseLevels(rungs, num_path_steps=1))
    state = kernel.init(random.split(random.key(0), n), 0, None, (y,), {})
    x = np.asarray(state.kernel_states.z["x"], np.float64)[..., 0]
    paths = NoisePaths(point_model, 1, (y,), {}, {"x": jnp.zeros(1)})
    widths = jax.tree.map(lambda table: table[0], state.widths)
    right = float(masses_of_level(paths, LevelOnPath(jnp.asarray(rungs[0]), widths)) @ (GRID > 0))
    assert_within(np.mean(x[:, 0] > 0), right, np.sqrt(right * (1 - right) / n))
    sd = np.sqrt(rungs[-1] ** 2 + WIDTH**2 + WEIGHTS @ POINTS**2 - (WEIGHTS @ POINTS) ** 2)
    np.testing.assert_allclose(np.std(x[:, -1]), sd, rtol=0.1)
    level, start = LevelOnPath(jnp.asarray(0.05), widths), {"x": jnp.array([2.0])}
    lost = paths.picked(random.key(0), jnp.full((5, 1), jnp.nan), level, start)
    np.testing.assert_allclose(lost["x"], start["x"], rtol=1e-6)
    state = kernel.init(random.key(0), 0, start, (y,), {})
    np.testing.assert_allclose(state.z["x"], start["x"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel",
    [
        partial(ns.MALA, num_steps=2),
        partial(ns.MALT, num_steps=3),
        partial(NUTS, max_tree_depth=2),
    ],
    ids=["MALA", "MALT", "NUTS"],
)
def test_the_share_of_a_mode_and_the_noise_beside_it(kernel):
    """No kernel reaches the other mode by itself; MALA and MALT never ask for a log density."""
    y = 0.5
    ladder = ns.NoiseLevels([0.05, 0.7, 2.5, 8.0], num_path_steps=2)
    kernel = ns.ReplicaExchange(kernel(modes_model), ladder)
    mcmc = run(kernel, y, num_warmup=100, num_samples=200, num_chains=200)
    draws = mcmc.get_samples(group_by_chain=True)
    log_scale = np.log(np.asarray(draws["scale"], np.float64))
    right, mean, variance = exact_of_modes(y)
    pairs = [
        (draws["x"][..., 0] > 0, right),
        (log_scale, mean),
        ((log_scale - mean) ** 2, variance),
    ]
    for values, exact in pairs:
        found, error = mean_and_error(values)
        assert error < 0.02
        assert_within(found, exact, error)
    assert np.mean(mcmc.last_state.round_trip_rate) > 0.02
