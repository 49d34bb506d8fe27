# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Swaps of replicas along the probability flow between two noise levels."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_no_rejection
from jax import random
from scipy import stats

import numpyro_scores as ns
from numpyro_scores.infer import noise_paths
from numpyro_scores.infer.noise_paths import LevelOnPath, NoisePaths
from numpyro_scores.infer.path_widths import Widths
from numpyro_scores.infer.swaps import even_odd_partners, swap

pytestmark = pytest.mark.usefixtures("quick_compilation")

MEAN, VARIANCE = np.array([0.5, -1.0]), np.array([1.0, 4.0])
PROCESS = ns.VarianceExploding(0.1, 20.0)
SCALE, Y = 0.5, np.array([0.8, -2.0])


def gaussian_denoiser(x, sigma):
    gain = VARIANCE / (VARIANCE + sigma**2)
    return MEAN + gain * (x - MEAN)


def gaussian_model():
    x = numpyro.sample("x", ns.DiffusionPrior(gaussian_denoiser, PROCESS, 2))
    numpyro.sample("y", dist.Normal(x, SCALE).to_event(1), obs=jnp.asarray(Y))


def paths_of(num_steps, like):
    return NoisePaths(gaussian_model, num_steps, (), {}, {"x": like})


def level_of(sigma, added):
    table = jnp.broadcast_to(jnp.asarray(added), (2, 2))
    return LevelOnPath(jnp.asarray(sigma), Widths(jnp.log(jnp.array([0.1, 20.0])), {"y": table}))


def log_target(x, sigma, added):
    """Of a level, its likelihood that of the mean: all is Gaussian."""
    own = PROCESS.sigma_min
    gain = (VARIANCE + own**2) / (VARIANCE + sigma**2)
    log_prior = stats.norm.logpdf(x, MEAN, np.sqrt(VARIANCE + sigma**2))
    mean = MEAN + gain * (x - MEAN)
    return np.sum(log_prior + stats.norm.logpdf(Y, mean, np.sqrt(SCALE**2 + added)))


def test_the_ratio_of_a_swap_is_that_of_metropolis_as_steps_grow_at_third_order(x64):
    """
    The density of both ends and the Jacobian of the way itself, in closed form, by the steps as
    they are: what the swap leaves out is the error of the flow.
    """
    low, high, added = 0.3, 3.0, np.array([0.2, 0.9])
    x, y = jnp.array([0.1, 1.0]), jnp.array([2.5, -4.0])
    levels = level_of(low, added), level_of(high, added)

    def error(num_steps):
        paths = paths_of(num_steps, x)
        down, share = paths.swapped({"x": x}, {"x": y}, *levels)
        up, share_up = paths.swapped({"x": y}, {"x": x}, *levels[::-1])

        def way(x, *ends):
            return paths.carried({"x": x}, *map(jnp.asarray, ends))["x"]

        slopes = [jax.jacfwd(way)(x, low, high), jax.jacfwd(way)(y, high, low)]
        exact = sum(np.linalg.slogdet(slope)[1] for slope in slopes)
        exact += log_target(down["x"], low, added) + log_target(up["x"], high, added)
        exact -= log_target(x, low, added) + log_target(y, high, added)
        return abs(share + share_up - exact)

    errors = np.array([error(num_steps) for num_steps in (3, 6, 12)])
    assert errors[-1] < 0.01
    np.testing.assert_array_less(6, errors[:-1] / errors[1:])
    np.testing.assert_array_less(errors[:-1] / errors[1:], 11)


def posterior_of(sigma, added):
    """Mean and standard deviation of a level."""
    gain = (VARIANCE + PROCESS.sigma_min**2) / (VARIANCE + sigma**2)
    precision = 1 / (VARIANCE + sigma**2) + gain**2 / (SCALE**2 + added)
    mean = MEAN + gain * (Y - MEAN) / (SCALE**2 + added) / precision
    return mean, precision**-0.5


def test_swaps_leave_the_product_of_the_levels_invariant():
    """Exact draws of two levels, one swap of a third of them, and the laws are what they were."""
    n, sigmas, added = 20_000, (0.1, 2.0), np.array([0.0, 0.5])
    laws = [posterior_of(sigma, a * np.ones(2)) for sigma, a in zip(sigmas, added, strict=True)]
    mean, sd = (jnp.array([law[i] for law in laws]) for i in (0, 1))
    x = mean + sd * random.normal(random.key(0), (n, 2, 2))
    widths = Widths(jnp.log(jnp.array(sigmas)), {"y": jnp.broadcast_to(added[:, None], (2, 2))})
    partner = even_odd_partners(0, 2)

    @jax.jit
    @jax.vmap
    def swapped(x, key):
        paths = paths_of(6, x[0])
        rungs = jnp.array(sigmas)

        def propose(x, other, sigma, sigma_of_other):
            levels = (LevelOnPath(s, widths) for s in (sigma, sigma_of_other))
            z, share = paths.swapped({"x": x}, {"x": other}, *levels)
            return z["x"], share

        proposal, share = jax.vmap(propose)(x, x[partner], rungs, rungs[partner])
        source, accept_prob = swap(key, share + share[partner], partner)
        return jnp.where((source == partner)[:, None], proposal, x), accept_prob[0]

    x, accept_prob = swapped(x, random.split(random.key(1), n))
    assert 0.2 < np.mean(accept_prob) < 0.9
    white = np.asarray((x - mean) / sd, np.float64).reshape(n, 4)
    pvalues = {f"entry {k}": stats.kstest(white[:, k], "norm").pvalue for k in range(4)}
    pairs = [(i, j) for i in range(4) for j in range(i)]
    pvalues |= {str(pair): stats.pearsonr(*white[:, pair].T).pvalue for pair in pairs}
    assert_no_rejection(pvalues)


def test_a_level_sees_the_mean_of_the_value_and_what_that_leaves_open(monkeypatch, x64):
    """Two data that are correlated where the value is not: along their own axes they are wider."""
    monkeypatch.setattr(noise_paths, "NUM_PILOTS", 4_000)
    x, scale, own = jnp.array([0.3, -2.0]), 3.0 * SCALE, 1 + PROCESS.sigma_min**2
    rows, y = jnp.array([[1.0, 0.9], [0.8, 1.1]]), jnp.asarray(Y)

    def model(scale):
        prior = ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), PROCESS, 2)
        numpyro.sample(
            "y", dist.Normal(rows @ numpyro.sample("x", prior), scale).to_event(1), obs=y
        )

    paths = NoisePaths(model, 1, (SCALE,), {}, {"x": x})
    widths, _ = paths.prepared(random.key(0), {"x": x}, (0.1, 20.0), is_given=True)
    sigma = jnp.exp(widths.log_levels[5])
    np.testing.assert_array_equal(widths.at("y", jnp.asarray(0.1)), 0)
    # Of another noise than that of the frame.
    paths = NoisePaths(model, 1, (scale,), {}, {"x": x})
    kept = own / (1 + sigma**2)
    covariance = kept * (sigma**2 - 0.1**2) * rows @ rows.T + scale**2 * np.eye(2)
    for at in (x, jnp.array([3.0, -4.0])):
        exact = -stats.multivariate_normal.logpdf(y, kept * rows @ at, covariance)
        np.testing.assert_allclose(
            paths.energy(LevelOnPath(sigma, widths), {"x": at}), exact, rtol=0.015
        )
    level, likelihood = LevelOnPath(jnp.asarray(0.1), widths), stats.norm.logpdf(y, rows @ x, scale)
    np.testing.assert_allclose(paths.energy(level, {"x": x}), -np.sum(likelihood), rtol=1e-9)


def test_masked_data_are_widened_one_by_one(x64):
    def model():
        x = numpyro.sample("x", ns.DiffusionPrior(gaussian_denoiser, PROCESS, 2))
        seen = dist.Normal(x, SCALE).mask(jnp.array([True, False])).to_event(1)
        numpyro.sample("y", seen, obs=jnp.asarray(Y))

    x = jnp.array([0.3, -2.0])
    paths = NoisePaths(model, 1, (), {}, {"x": x})
    widths, _ = paths.prepared(random.key(0), {"x": x}, (0.1, 20.0), is_given=True)
    exact = -stats.norm.logpdf(Y[0], x[0], SCALE)
    energy = paths.energy(LevelOnPath(jnp.asarray(0.1), widths), {"x": x})
    np.testing.assert_allclose(energy, exact, rtol=1e-9)
    assert not widths.frames


def test_a_swapped_replica_is_where_the_path_of_its_partner_ends(x64):
    """Of a kernel that stays where it is: what moves are the swaps."""
    rungs = 0.1, 1.0
    kernel = ns.ULA(gaussian_model, step_size=1e-30, num_steps=1)
    kernel = ns.ReplicaExchange(kernel, ns.NoiseLevels(rungs, num_path_steps=2))
    before = kernel.init(random.split(random.key(0), 20), 0, None, (), {})
    after = jax.jit(lambda state: kernel.sample(state, (), {}))(before)
    x, is_swapped = before.kernel_states.z["x"], after.walkers[:, 0] == 1
    assert 0 < np.mean(is_swapped) < 1

    def way(x, *ends):
        return paths_of(2, x).carried({"x": x}, *map(jnp.asarray, ends))["x"]

    down, up = (
        jax.vmap(lambda x, e=e: way(x, *e))(x[:, k]) for k, e in [(1, rungs[::-1]), (0, rungs)]
    )
    moved = jnp.stack([down, up], axis=1)
    exact = jnp.where(is_swapped[:, None, None], moved, x)
    np.testing.assert_allclose(after.kernel_states.z["x"], exact, rtol=1e-9)
    np.testing.assert_array_equal(after.z["x"], after.kernel_states.z["x"][:, 0])


@pytest.mark.parametrize("num_path_steps", [0, 1.5, True])
def test_steps_of_a_path_are_counted(num_path_steps):
    with pytest.raises((ValueError, TypeError), match="num_path_steps"):
        ns.NoiseLevels([0.1, 1.0], num_path_steps=num_path_steps)


def transformed_model():
    prior = ns.DiffusionPrior(gaussian_denoiser, PROCESS, 2)
    numpyro.sample("x", dist.TransformedDistribution(prior, dist.transforms.ExpTransform()))


def varying_model():
    scale = numpyro.sample("scale", dist.LogNormal())
    denoiser = jax.tree_util.Partial(lambda s, x, sigma: x * s**2 / (s**2 + sigma**2), scale)
    numpyro.sample("x", ns.DiffusionPrior(denoiser, PROCESS, 2))


def scaled_model():
    with numpyro.handlers.scale(scale=2.0):
        numpyro.sample("x", ns.DiffusionPrior(gaussian_denoiser, PROCESS, 2))


@pytest.mark.parametrize(
    "model, message",
    [
        (scaled_model, "takes from the prior of site 'x' its denoiser"),
        (transformed_model, "is a transform of one: sample the prior itself"),
        (varying_model, "normaliser varies with them"),
    ],
    ids=["scale", "transform", "prior-of-another-site"],
)
def test_models_whose_replicas_would_swap_wrongly(model, message):
    kernel = ns.ReplicaExchange(ns.MALA(model), ns.NoiseLevels([0.1, 5.0], num_path_steps=2))
    with pytest.raises(ValueError, match=message):
        kernel.init(random.key(0), 0, None, (), {})
