# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Twists by a denoiser that is right and whose Jacobian is not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within
from infer.smc.twists import NOISE, OPERATOR, PRIOR, PROCESS, Y, denoise, unmoved
from jax import lax, random

import numpyro_scores as ns
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.smc.twist_widths import added_variances
from numpyro_scores.infer.smc.weights import resampled

# Much is compiled here, for little to be computed.
pytestmark = pytest.mark.usefixtures("quick_compilation")


@jax.custom_jvp
def denoise_with_a_wrong_slope(x, sigma):
    return denoise(x, sigma)


@denoise_with_a_wrong_slope.defjvp
def _(primals, tangents):
    value, change = jax.jvp(denoise, primals, tangents)
    return value, -0.1 * change


WRONG = ns.DiffusionPrior(denoise_with_a_wrong_slope, PROCESS, 3)


def measured(y, prior=WRONG):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(OPERATOR @ x, NOISE).to_event(1), obs=y)


def with_a_noise_scale(y):
    x = numpyro.sample("x", PRIOR)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(OPERATOR @ x, noise).to_event(1), obs=y)


def test_no_covariance_is_negative_and_what_a_jacobian_lacks_is_measured():
    x = jnp.array([0.3, -1.0, 2.0])
    exact = dist.Normal(OPERATOR @ denoise(x, 1.5), NOISE).log_prob(Y).sum()
    np.testing.assert_allclose(-unmoved(FlatModel(measured, (Y,), {}), x, 1.5).energy, exact, 1e-3)

    nothing = jnp.zeros((2, 3))
    twist = DiffusionTwist(FlatModel(measured, (Y,), {}), [3.0, 1.5], jnp.array([[9, 9], [2, 1.0]]))
    wider = twist.covariance(nothing, nothing, jnp.array(1.5))
    np.testing.assert_array_equal(wider, np.diag([2.0, 1.0]))

    levels = np.geomspace(50.0, 0.02, 12, dtype=np.float32)

    @jax.jit
    def found(key):
        start = 50 * random.normal(key, (200, 3))
        return [
            added_variances(key, start, DiffusionTwist(FlatModel(measured, (Y, p), {})), levels, 50)
            for p in (WRONG, PRIOR)
        ]

    wrong, right = (np.asarray(values, float) for values in found(random.key(0)))
    lacking = levels**2 / (1 + levels**2)  # in units of the variance of what is measured
    share = wrong[:-1] / np.diag(OPERATOR @ OPERATOR.T)
    seen = (lacking * 1.25 > NOISE**2)[:-1]  # below, the noise hides it
    ratio = share[seen] / lacking[:-1][seen, None]
    assert np.all((ratio > 0.5) & (ratio < 1.7))  # powers of two, of a variance that is estimated
    assert np.all(right[:-1] < 0.1 * np.maximum(wrong[:-1], NOISE**2))
    np.testing.assert_array_equal([wrong[-1], right[-1]], 0)


@pytest.mark.slow
def test_the_evidence_is_right_whatever_the_jacobian():
    sampler = ns.TwistedDiffusionSampler(measured, 2_000, progress_bar=False)
    sampler.run(random.key(0), Y)
    marginal = OPERATOR @ OPERATOR.T + NOISE**2 * np.eye(2)
    exact = float(dist.MultivariateNormal(np.zeros(2), marginal).log_prob(Y))
    assert_within(sampler.log_evidence, exact, sampler.log_evidence_error)
    assert sampler.log_evidence_error < 0.2


@pytest.mark.slow
def test_other_sites_move_on_the_way():
    """Resampling alone would leave no more values of them than there are ancestors."""
    sampler = ns.TwistedDiffusionSampler(with_a_noise_scale, 300, num_levels=5)
    sampler._levels = np.geomspace(50.0, 0.02, 5)

    @jax.jit
    def last_level(key):
        model = FlatModel(with_a_noise_scale, (3 * Y,), {})
        state = sampler._start(key, model, {})
        return lax.while_loop(lambda s: s.i < 5, lambda s: sampler._level(s, model), state)

    state = last_level(random.key(0))
    values, ancestors = (len(np.unique(v)) for v in (state.points.x[:, 0], state.ancestor))
    assert values > 2 * ancestors
    accept_prob = np.asarray(state.rounds.accept_prob)
    assert accept_prob[0] == 1 and np.all((accept_prob[1:5] > 0.05) & (accept_prob[1:5] < 0.95))


def test_the_error_of_an_evidence_of_few_particles_is_infinite():
    x = jnp.arange(100.0)[:, None]
    for num, is_known in ((20, True), (5, False)):
        log_weights = jnp.where(jnp.arange(100) < num, 0.0, -50.0)
        found = resampled(random.key(0), x, log_weights, jnp.arange(100), 100, 100)
        assert np.isfinite(found.variance) == is_known
