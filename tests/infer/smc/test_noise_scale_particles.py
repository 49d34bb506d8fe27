# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Particles with an inferred noise scale: the funnel of few data, and moves in one block."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within
from infer.smc.funnels import GAUSSIAN, LEVELS, VARIANCE, Y, exact_noise, funnel
from jax import lax, random

import numpyro_scores as ns
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.block_moves import Block, block_step, spread_root
from numpyro_scores.infer.smc.moves import points_at
from numpyro_scores.infer.smc.noise_scales import information, noise_scales

pytestmark = pytest.mark.usefixtures("quick_compilation")


def exact_draws(n, power):
    """Draws of the posterior of a power of the likelihood, unconstrained: log noise, then x."""
    nodes, cumulated, _ = exact_noise(power)
    rng = np.random.default_rng(0)
    noise = np.interp(rng.uniform(size=n), cumulated, nodes)[:, None]
    precision = 1 / VARIANCE + power / noise**2
    mean = power * np.asarray(Y) / noise**2 / precision
    x = mean + rng.normal(size=(n, 4)) / np.sqrt(precision)
    return np.concatenate([np.log(noise), x], axis=1).astype(np.float32)


@pytest.mark.parametrize("dense", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("step_size", [1.0, 0.3])
def test_a_block_leaves_the_funnel_as_it_is_and_gets_down_its_neck(step_size, dense):
    n, power = 4_000, 0.8
    x = exact_draws(n, power)
    scales, others = np.array([0]), np.arange(1, 5)
    precision = jnp.eye(4) if dense else jnp.ones(4)  # nearly that of the prior

    @jax.jit
    def moved(x, key):
        model = FlatModel(funnel, (Y, GAUSSIAN), {})
        target = model.tempered(power, x[0], ns.LineIntegral(num_nodes=2))
        block = Block(scales, others, precision)
        walk = spread_root(x[:, scales])
        of_data = jax.grad(model.log_likelihood), information(model, others, dense)

        def step(points, key):
            keys = random.split(key, n)
            points, accept_prob, *_ = jax.vmap(
                lambda key, point: block_step(
                    key, point, target, *of_data, power, block, walk, jnp.array(step_size)
                )
            )(keys, points)
            return points, accept_prob

        return lax.scan(step, points_at(x, target, n), random.split(key, 8))

    points, accept_prob = moved(x, random.key(1))
    noise = np.exp(points.x[:, 0])
    nodes, cumulated, _ = exact_noise(power)
    for level in LEVELS:
        share = np.mean(noise < np.interp(level, cumulated, nodes))
        assert_within(share, level, np.sqrt(level * (1 - level) / n))
    # In units of its own width, x given the noise is standard normal, in the neck too.
    width = np.sqrt(1 / (1 / VARIANCE + power / noise**2))[:, None]
    white = (points.x[:, 1:] - power * Y * width**2 / noise[:, None] ** 2) / width
    neck = noise < np.interp(0.1, cumulated, nodes)
    for part in (neck, ~neck):
        assert_within(np.var(white[part]), 1, np.sqrt(2 / white[part].size))
    # It moves in the neck as elsewhere.
    start = np.argsort(x[:, 0])[: n // 10]
    assert np.mean(accept_prob[0, start]) > 0.3
    assert abs(np.corrcoef(points.x[:, 0], x[:, 0])[0, 1]) < (0.2 if step_size == 1 else 0.5)


def regression(y, seen):
    slope = numpyro.sample("slope", dist.Normal(0, 1).expand([3]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.handlers.scale(scale=2.0):
        numpyro.sample("y", dist.Normal(OPERATOR @ slope, noise).mask(seen).to_event(1), obs=y)


OPERATOR = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def test_the_information_of_data_with_masks_and_scales():
    seen = jnp.array([True, True, False, True, False])
    model = FlatModel(regression, (jnp.ones(5), seen), {})
    x = jnp.array([np.log(0.5), 0.3, -1.0, 2.0], jnp.float32)  # noise, slope
    np.testing.assert_array_equal(noise_scales(model, x), [0])
    found = jax.jit(information(model, np.arange(1, 4), dense=True))(x)
    rows = OPERATOR[np.asarray(seen)]
    np.testing.assert_allclose(found, 2 * rows.T @ rows / 0.5**2, rtol=1e-4)
    lengths = jax.jit(information(model, np.arange(1, 4), dense=False))(x)
    exact = np.linalg.norm(np.asarray(found), axis=1)
    assert np.all((lengths > exact / 2.5) & (lengths < exact * 2.5))


def many_scales(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([9]).to_event(1))
    numpyro.sample("y", dist.Normal(0, jnp.exp(x)).to_event(1), obs=y)


def test_a_model_without_scales_or_with_many_moves_by_mala():
    assert noise_scales(FlatModel(many_scales, (jnp.ones(9),), {}), jnp.zeros(9)).size == 0
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    x = np.random.default_rng(0).multivariate_normal(np.zeros(2), covariance, 50_000)
    root = np.asarray(jax.jit(spread_root)(x.astype(np.float32)))
    np.testing.assert_allclose(root @ root.T, covariance, atol=0.05)


def test_a_funnel_and_its_evidence():
    smc = ns.TemperedSMC(funnel, 2_000, progress_bar=False)
    smc.run(random.key(0), Y, GAUSSIAN)
    nodes, cumulated, log_evidence = exact_noise()
    assert_within(smc.log_evidence, log_evidence, smc.log_evidence_error)
    noise = np.asarray(smc.get_samples()["noise"])
    for level in LEVELS:  # a fifth of the particles have a line of their own
        share = np.mean(noise < np.interp(level, cumulated, nodes))
        assert_within(share, level, np.sqrt(level * (1 - level) / 400))
