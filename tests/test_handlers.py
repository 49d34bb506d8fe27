# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
A model at a noise level, where the prior is Gaussian and everything is known: the density at level
:math:`\sigma` is :math:`N(0, 4 + \sigma^2)`, its denoiser :math:`4 x / (4 + \sigma^2)`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import norm
from numpyro import handlers
from numpyro.infer.util import log_density

from numpyro_scores import DiffusionPrior, NoisePathIntegral, VarianceExploding
from numpyro_scores.handlers import (
    at_noise_level,
    denoised,
    noise_conditional_prior,
    noise_level,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

VARIANCE = 4.0
NOISE = 0.5
Y = 1.3
MASK = np.array([True, False, True])
X = np.random.default_rng(0).normal(size=(2, 3, 2))


def wiener(x, sigma):
    return VARIANCE / (VARIANCE + sigma**2) * x


PRIOR = DiffusionPrior(
    wiener, VarianceExploding(0.02, 500.0), 2, log_density=NoisePathIntegral(num_nodes=64)
)


def model(prior=PRIOR):
    x = numpyro.sample("x", prior)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x.sum(), noise), obs=Y)


def hand_written(x, sigma, mask=True, denoised=True):
    """The log density of `model`."""
    log_prior = norm.logpdf(x, 0, jnp.sqrt(VARIANCE + sigma**2)).sum(-1)
    # What is masked has no density that noise would be averaged over.
    is_denoised = denoised & jnp.asarray(mask)[..., None]
    location = jnp.where(is_denoised, wiener(x, sigma), x).sum()
    log_noise = dist.HalfNormal(1.0).log_prob(NOISE)
    return jnp.sum(log_prior * mask) + log_noise + norm.logpdf(Y, location, NOISE)


def found(x, sigma, prior=PRIOR, denoised=True):
    noisy = noise_level(partial(model, prior), sigma, denoised)
    return log_density(noisy, (), {}, {"x": x, "noise": NOISE})[0]


DRESSED = {
    "expand": (PRIOR.expand((3,)), X[0], True),
    "to_event": (PRIOR.expand((3,)).to_event(1), X[0], True),
    "all to_event": (PRIOR.expand((2, 3)).to_event(2), X, True),
    "mask": (PRIOR.mask(MASK), X[0], MASK),
    "mask nothing": (PRIOR.mask(True), X[0, 0], True),
    "mask everything": (PRIOR.mask(False), X[0, 0], False),
    "to_event of a mask": (PRIOR.mask(MASK).to_event(1), X[0], MASK),
    "mask of a to_event": (
        PRIOR.expand((2, 3)).to_event(1).mask(np.array([True, False])),
        X,
        np.array([[True], [False]]),
    ),
    "expand of a mask": (PRIOR.mask(MASK).expand((2, 3)), X, MASK),
    "expand of a to_event": (PRIOR.expand((3,)).to_event(1).expand((2,)), X, True),
}


@pytest.mark.parametrize("sigma", [0.02, 1.5, 40.0])
@pytest.mark.parametrize("denoised", [True, False])
def test_the_log_density_is_the_hand_written_one(x64, sigma, denoised):
    value = found(X[0, 0], sigma, denoised=denoised)
    np.testing.assert_allclose(value, hand_written(X[0, 0], sigma, denoised=denoised), rtol=1e-6)


@pytest.mark.parametrize("prior, x, mask", DRESSED.values(), ids=list(DRESSED))
def test_it_sees_through(x64, prior, x, mask):
    np.testing.assert_allclose(found(x, 1.5, prior), hand_written(x, 1.5, mask), rtol=1e-6)
    noisy = at_noise_level(prior, 1.5)
    assert jax.tree.structure(noisy) == jax.tree.structure(prior)
    assert (noisy.batch_shape, noisy.event_shape) == (prior.batch_shape, prior.event_shape)
    assert noise_conditional_prior(noisy).sigma == 1.5


@pytest.mark.parametrize("denoised", [True, False])
def test_beneath_a_transform_the_prior_has_the_noise(x64, denoised):
    transform = dist.transforms.AffineTransform(1.0, 2.0)
    prior = dist.TransformedDistribution(PRIOR, transform).expand((3,))
    noisy = norm.logpdf(X[0], 0, jnp.sqrt(VARIANCE + 1.5**2)) - jnp.log(2)
    location = transform(wiener(X[0], 1.5) if denoised else X[0]).sum()
    rest = dist.HalfNormal(1.0).log_prob(NOISE) + norm.logpdf(Y, location, NOISE)
    value = found(transform(X[0]), 1.5, prior, denoised)
    np.testing.assert_allclose(value, noisy.sum() + rest, rtol=1e-6)


def test_it_sees_through_plates(x64):
    def with_plate():
        with numpyro.plate("points", 3):
            x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(x.sum(), NOISE), obs=Y)

    noisy = noise_level(with_plate, 1.5, denoised=True)
    value, trace = log_density(noisy, (), {}, {"x": X[0]})
    expected = hand_written(X[0], 1.5) - dist.HalfNormal(1.0).log_prob(NOISE)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert trace["x"]["fn"].batch_shape == (3,)


@pytest.mark.parametrize("fn", [dist.Normal(), dist.Normal(0, np.ones(3)).to_event(1).mask(True)])
def test_other_distributions_are_not_noise_conditional(fn):
    assert noise_conditional_prior(fn) is None


def test_the_trace_keeps_the_noisy_value_while_the_model_sees_the_denoised_one():
    substituted = handlers.substitute(noise_level(model, 1.5, True), {"x": X[0, 0], "noise": NOISE})
    trace = handlers.trace(substituted).get_trace()
    np.testing.assert_array_equal(trace["x"]["value"], X[0, 0])
    np.testing.assert_allclose(trace["x"]["fn"].sigma, 1.5)
    np.testing.assert_allclose(trace["y"]["fn"].loc, wiener(X[0, 0], 1.5).sum(), rtol=1e-6)
    assert trace["y"]["fn"].scale == trace["noise"]["value"] == NOISE
    assert trace["y"]["value"] == Y


def test_the_noisy_value_is_drawn_at_its_noise_level():
    seeded = handlers.seed(noise_level(model, 30.0, denoised=True), 0)
    trace = handlers.trace(seeded).get_trace()
    x = PRIOR.at(30.0).sample(trace["x"]["kwargs"]["rng_key"])
    np.testing.assert_allclose(trace["x"]["value"], x, rtol=1e-6)
    np.testing.assert_allclose(trace["y"]["fn"].loc, wiener(x, 30.0).sum(), rtol=1e-5)


def test_observed_sites_are_left_alone(x64):
    def observed():
        x = numpyro.sample("x", PRIOR, obs=X[0, 0])
        numpyro.sample("y", dist.Normal(x.sum(), NOISE), obs=Y)

    for conditioned in (observed, handlers.condition(model, {"x": X[0, 0]})):
        noisy = noise_level(conditioned, 1.5, denoised=True)
        trace = handlers.trace(handlers.seed(noisy, 0)).get_trace()
        assert trace["x"]["fn"].sigma == PRIOR.sigma
        np.testing.assert_array_equal(trace["y"]["fn"].loc, X[0, 0].sum())


def test_a_substituted_value_is_at_the_noise_level(x64):
    data, noisy = {"x": X[0, 0]}, partial(noise_level, sigma=1.5, denoised=True)
    for fn, seen in [
        (noisy(handlers.substitute(model, data)), wiener(X[0, 0], 1.5)),
        (handlers.substitute(noisy(model), data), wiener(X[0, 0], 1.5)),
        (handlers.condition(noisy(model), data), X[0, 0]),
    ]:
        trace = handlers.trace(handlers.seed(fn, 0)).get_trace()
        assert trace["x"]["fn"].sigma == 1.5
        np.testing.assert_allclose(trace["y"]["fn"].loc, seen.sum(), rtol=1e-12)


def test_each_prior_clips_the_noise_level_to_its_process():
    narrow = DiffusionPrior(wiener, VarianceExploding(0.1, 5.0), 2)

    def both():
        return numpyro.sample("narrow", narrow), numpyro.sample("wide", PRIOR)

    for sigma, clipped in [(1e9, (5.0, 500.0)), (1e-9, (0.1, 0.02)), (10.0, (5.0, 10.0))]:
        trace = handlers.trace(handlers.seed(noise_level(both, sigma), 0)).get_trace()
        levels = [trace[name]["fn"].sigma for name in ("narrow", "wide")]
        np.testing.assert_allclose(levels, clipped, rtol=1e-6)


def test_a_traced_noise_level_under_jit_and_vmap(x64):
    sigmas = np.array([0.02, 1.5, 40.0])
    batch = jax.jit(jax.vmap(jax.vmap(found, (None, 0)), (0, None)))(X[0], sigmas)
    expected = [[hand_written(x, sigma) for sigma in sigmas] for x in X[0]]
    np.testing.assert_allclose(batch, expected, rtol=1e-6)


def test_the_gradient_goes_through_the_denoiser(x64):
    # That of the likelihood is the Jacobian of the denoiser times the one at the denoised value.
    prior, x, mask = DRESSED["to_event of a mask"]
    grad = jax.jit(jax.grad(partial(found, prior=prior)))(x, 1.5)
    np.testing.assert_allclose(grad, jax.grad(hand_written)(x, 1.5, mask), rtol=1e-6)


def test_as_a_context():
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        with noise_level(sigma=1.5):
            numpyro.sample("inside", PRIOR)
        numpyro.sample("outside", PRIOR)
    np.testing.assert_allclose([site["fn"].sigma for site in trace.values()], [1.5, 0.02])


def test_a_missing_noise_level_is_told():
    with pytest.raises(ValueError, match="sigma must be a finite positive number, got None"):
        handlers.seed(noise_level(model), 0)()


def test_what_is_masked_is_not_denoised():
    """Beneath `expand` and `to_event` too: without a density the point itself is its mean."""
    prior = PRIOR.at(1.0).expand([3]).mask(MASK)
    shrunk = VARIANCE / (VARIANCE + 1) * X
    expected = np.where(MASK[:, None], shrunk, X)
    for fn in (prior, prior.expand([2, 3]), prior.expand([2, 3]).to_event(1)):
        np.testing.assert_allclose(denoised(fn, jnp.asarray(X)), expected, rtol=1e-5)
    np.testing.assert_allclose(denoised(PRIOR.at(1.0).mask(False), X), X)
