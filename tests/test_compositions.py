# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Products of densities, guidance by a class, and by a power of the likelihood, on Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.scipy.stats import norm
from numpyro import handlers
from numpyro.infer.util import log_density

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def normal(mean, scale):
    return dist.Normal(jnp.full(2, mean), scale).to_event(1)


def half_normal():
    return dist.HalfNormal(1.0).expand([2]).to_event(1)


def uniform(low, high):
    return dist.Uniform(low, high).expand([2]).to_event(1)


def quadratic(x):
    return jnp.sum(x**2) / 2


def test_a_product_of_gaussians_is_the_gaussian_of_added_precisions(x64):
    powers = np.array([2.0, 0.5, 1.0])
    experts = [normal(1.0, 0.5), normal(-1.0, 2.0), ns.EnergyDistribution(quadratic, 2)]
    product = ns.ProductOfExperts(experts, powers)
    precision = 2.0 / 0.5**2 + 0.5 / 2.0**2 + 1
    mean = (2.0 / 0.5**2 - 0.5 / 2.0**2) / precision
    x = np.random.default_rng(0).normal(size=(5, 2))
    exact = normal(mean, precision**-0.5).log_prob(x)
    found = jax.jit(lambda product: product.log_prob(x))(product)
    np.testing.assert_allclose(found - found[0], exact - exact[0], rtol=1e-12)
    gradient = jax.jit(jax.grad(lambda x: product.log_prob(x).sum()))(x)
    np.testing.assert_allclose(gradient, -precision * (x - mean), rtol=1e-12)
    log_z = found[0] - exact[0]
    normalised = ns.ProductOfExperts(experts, powers, log_normalizer=log_z)
    np.testing.assert_allclose(normalised.log_prob(x), exact, rtol=1e-12)


def beyond(x):
    """The energy of a density that is zero within 1.5."""
    return jnp.where(jnp.abs(x[0]) > 1.5, 0.0, jnp.inf)


def test_an_expert_to_the_power_zero_leaves_nothing_where_it_is_zero(x64):
    experts = [normal(0.5, 1.0), ns.EnergyDistribution(beyond, 2)]
    x = np.array([[0.0, 0.3], [2.0, 0.3]])
    for power, expected in [
        (0.0, experts[0].log_prob(x)),
        (1.0, [-np.inf, experts[0].log_prob(x[1])]),
    ]:
        product = ns.ProductOfExperts(experts, [1.0, power])
        np.testing.assert_allclose(product.log_prob(x), expected, rtol=1e-12)
    powerless = ns.ProductOfExperts(experts, [1.0, 0.0])
    gradient = jax.jit(jax.grad(lambda x: powerless.log_prob(x).sum()))(x)
    np.testing.assert_allclose(gradient, 0.5 - x, rtol=1e-12)
    # A power that is trained from 0 on has the log density for its gradient, where it is finite.

    @jax.jit
    @jax.grad
    def slope(power):
        return ns.ProductOfExperts(experts, jnp.stack([1.0, power])).log_prob(x[1])

    np.testing.assert_allclose(slope(0.0), experts[1].log_prob(x[1]))


@pytest.mark.parametrize(
    "experts, powers, error, message",
    [
        ([], None, ValueError, "at least one axis"),
        ([quadratic], None, TypeError, "must be NumPyro distributions"),
        (normal(0, 1), None, TypeError, "must be a sequence of distributions"),
        ([normal(0, 1), dist.Normal(0, 1).expand([3]).to_event(1)], None, ValueError, r"\(3,\)"),
        ([dist.Normal(jnp.zeros(2), 1)], None, ValueError, "to_event"),
        ([normal(0, 1), dist.Dirichlet(jnp.ones(2))], None, ValueError, "one support"),
        ([normal(0, 1), half_normal()], None, ValueError, "one support"),
        ([uniform(0.0, 1.0), uniform(0.0, 2.0)], None, ValueError, "Give each that of the product"),
        ([normal(0, 1)] * 2, np.ones(3), ValueError, "one entry for each of the 2 experts"),
    ],
)
def test_experts_that_do_not_fit_are_told(experts, powers, error, message):
    with pytest.raises(error, match=message):
        ns.ProductOfExperts(experts, powers)


def test_experts_may_write_one_support_in_two_ways():
    full = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    x = np.array([0.3, -1.0])
    found = ns.ProductOfExperts([full, normal(0, 1)]).log_prob(x)
    np.testing.assert_allclose(found, 2 * normal(0, 1).log_prob(x), rtol=1e-6)
    positive = [half_normal(), dist.Exponential(1.0).expand([2]).to_event(1)]
    assert ns.ProductOfExperts(positive).support == positive[0].support
    same = [uniform(0.0, 1.0), dist.Beta(2.0, 2.0).expand([2]).to_event(1)]
    assert ns.ProductOfExperts(same).support == same[0].support


def test_a_mixture_of_priors_is_numpyros():
    process = ns.VarianceExploding(0.02, 50.0)

    def prior(mean, variance):
        return ns.DiffusionPrior(
            lambda x, sigma: mean + variance / (variance + sigma**2) * (x - mean), process, 2
        )

    weights = dist.Categorical(jnp.array([0.3, 0.7]))
    mixture = dist.MixtureGeneral(weights, [prior(-2.0, 0.25), prior(2.0, 1.0)])
    variances = np.array([0.25, 1.0]) + 0.02**2
    exact = dist.MixtureGeneral(
        weights, [normal(-2.0, variances[0] ** 0.5), normal(2.0, variances[1] ** 0.5)]
    )
    x = np.array([[-2.1, -1.5], [0.1, 0.4], [2.0, 3.0]])
    found = jax.jit(jax.vmap(jax.value_and_grad(mixture.log_prob)))(x)
    expected = jax.jit(jax.vmap(jax.value_and_grad(exact.log_prob)))(x)
    np.testing.assert_allclose(found[0], expected[0], atol=2e-3)
    np.testing.assert_allclose(found[1], expected[1], atol=5e-3)
    drawn = np.asarray(jax.jit(lambda key: mixture.sample(key, (1000,)))(random.key(0)))
    assert abs(np.mean(drawn[:, 0] > 0) - 0.7) < 4 * np.sqrt(0.3 * 0.7 / 1000) + 0.02


def test_a_product_that_is_drawn_from_says_how():
    with pytest.raises(NotImplementedError, match="MCMC"):
        ns.ProductOfExperts([normal(0, 1)]).sample(random.key(0))


def of_two_classes(x, sigma, label=None):
    """Of data N(c, 1) for c = -2 or 2, one after the other."""
    means = jnp.array([-2.0, 2.0])
    variance = 1 + sigma**2
    of_class = means[:, None] + (x - means[:, None]) / variance
    log_odds = norm.logpdf(x, means[:, None], jnp.sqrt(variance)).sum(-1)
    return jax.nn.softmax(log_odds) @ of_class if label is None else of_class[label]


def log_class(x, sigma, label):
    means = jnp.array([-2.0, 2.0])[:, None]
    terms = norm.logpdf(x, means, jnp.sqrt(1 + sigma**2)).sum(-1)
    return jax.nn.log_softmax(terms)[label]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 3.0])
def test_guidance_adds_the_gradient_of_the_class(x64, gamma):
    x, sigma = np.array([0.4]), 0.8
    guided = ns.ClassifierFreeGuidance(of_two_classes, 1, gamma)
    prior = ns.DiffusionPrior(guided, ns.VariancePreserving(), 1)
    plain = ns.DiffusionPrior(of_two_classes, ns.VariancePreserving(), 1)
    class_score = jax.jit(jax.grad(log_class), static_argnums=2)(x, sigma, 1)
    score = jax.jit(lambda prior: prior.score(x, sigma))
    np.testing.assert_allclose(score(prior), score(plain) + gamma * class_score, rtol=1e-9)
    if gamma in (0.0, 1.0):
        label = None if gamma == 0 else 1
        both = jax.jit(lambda x: (guided(x, sigma), of_two_classes(x, sigma, label)))(x)
        np.testing.assert_allclose(*both, rtol=1e-12)


@pytest.mark.parametrize("gamma", [np.inf, "strong", np.ones(2)])
def test_a_strength_that_is_no_number_is_told(gamma):
    with pytest.raises(ValueError, match="gamma must be a finite number, got"):
        ns.ClassifierFreeGuidance(of_two_classes, 1, gamma)


def model(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
    with numpyro.plate("points", 4, subsample_size=2):
        numpyro.sample("z", dist.Normal(x, 2.0), obs=jnp.ones(2))


@pytest.mark.parametrize("sites, powers", [(None, (3, 3)), ("y", (3, 1)), (["z"], (1, 3))])
def test_a_guided_likelihood_is_raised_to_a_power(x64, sites, powers):
    guided = ns.handlers.guided(model, 3.0, sites)
    seeded = handlers.seed(guided, random.key(0))
    found, _ = log_density(seeded, (1.3,), {}, {"x": 0.4})
    # The plate counts its points twice.
    likelihoods = norm.logpdf(1.3, 0.4, 0.5), 4 * norm.logpdf(1.0, 0.4, 2.0)
    expected = norm.logpdf(0.4) + np.dot(powers, likelihoods)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_cannot_be_guided_is_told():
    for name in ("x", "w"):
        guided = ns.handlers.guided(model, 2.0, name)
        with pytest.raises(ValueError, match=f"no observed sites .'{name}'"):
            handlers.seed(guided, random.key(0))(1.3)
    for gamma in (-1.0, np.inf, np.ones(2), "strong", None):
        with pytest.raises(ValueError, match="gamma must be a finite number that is not negative"):
            ns.handlers.guided(model, gamma)


def test_only_what_is_conditioned_inside_is_guided(x64):
    def half():
        numpyro.sample("y", dist.Normal(0, 1))

    found = [
        log_density(ns.handlers.guided(handlers.condition(half, {"y": 2.0}), 3.0), (), {}, {})[0],
        log_density(handlers.condition(ns.handlers.guided(half, 3.0), {"y": 2.0}), (), {}, {})[0],
    ]
    np.testing.assert_allclose(found, norm.logpdf(2.0) * np.array([3, 1]), rtol=1e-12)
