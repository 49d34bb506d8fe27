# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The metric by what the data say: against matrices in closed form, and the law it leaves alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import draw
from jax import random
from numpyro.handlers import mask, scale, trace

import numpyro_scores as ns
from numpyro_scores.infer.diffusion.gauss_newton import LevelMetric, standard_locations
from numpyro_scores.infer.diffusion.step_sizes import SiteGroups
from numpyro_scores.infer.diffusion.walk import GroupedLangevin

IS_PRIOR = np.array([True, True, False, True, True, True])
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(4, 6)) * np.array([[300.0], [30.0], [3.0], [0.3]])


def metric_of(rows, rank, sigma, is_prior=IS_PRIOR):
    """Of linear locations, after some levels."""
    rows = jnp.asarray(rows, jnp.float32)
    like = jnp.zeros(rows.shape[1])
    metric = LevelMetric(ns.GaussNewton(rank), lambda _, x: rows @ x, is_prior, sigma, like)
    scout = metric.start(like, jnp.asarray(sigma))
    for _ in range(10 if rows.shape[0] > 2 * rank else 1):
        scout = at_level(metric, scout, sigma, True)
    return metric, scout


def at_level(metric, scout, sigma, wanted):
    """With a potential energy that is flat."""
    return metric.moved(
        random.key(0), scout, scout.x, jnp.zeros_like, jnp.asarray(sigma), 1.0, jnp.array(wanted)
    )


@pytest.mark.parametrize("num_data", [4, 3, 12])
def test_the_inverse_metric_is_that_of_prior_and_data(num_data):
    """With more entries than data, as many, and fewer: (I / sigma^2 + J^T J)^-1."""
    sigma = 0.7
    rows = np.resize(ROWS, (num_data, 6)) + (num_data > 4) * RNG.normal(size=(num_data, 6))
    metric, (_, root, _) = metric_of(rows, 3, sigma)
    assert metric.num_grad_evals == min(num_data, 5) + 1
    expected = np.eye(6)
    of_prior = rows[:, IS_PRIOR]
    expected[np.ix_(IS_PRIOR, IS_PRIOR)] = np.linalg.inv(
        np.eye(5) / sigma**2 + of_prior.T @ of_prior
    )
    np.testing.assert_allclose(root.inverse_metric, expected, atol=2e-6)


def test_of_many_data_the_stiffest_directions_are_found():
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(n, 8)))[0] for n in (9, 10))
    values = np.array([100.0, 30.0, 1e-1, 3e-2, 2e-2, 1e-2, 0, 0])
    rows = left * values @ right.T
    metric, (_, root, _) = metric_of(rows, 2, 0.5, np.ones(10, bool))
    assert metric.num_grad_evals == 5 and metric.num_directions == 2
    overlap = right[:, :2].T @ np.asarray(root.directions)
    np.testing.assert_allclose(np.abs(overlap), np.eye(2), atol=1e-4)
    np.testing.assert_allclose(root.stretch, 1 / np.sqrt(1 + (0.5 * values[:2]) ** 2), rtol=1e-4)


def test_a_level_that_does_not_want_it_has_none():
    metric, scout = metric_of(ROWS, 3, 0.7)
    root = at_level(metric, scout, 0.3, False).root
    np.testing.assert_allclose(root.inverse_metric, np.diag(np.where(IS_PRIOR, 0.09, 1)), rtol=1e-5)


def test_a_metric_of_another_place_is_given_up():
    """Where the curvature in it, one by its formula, is none of it; and for good."""
    metric, scout = metric_of(ROWS, 3, 0.7)

    def is_apart(scout, curvature, wanted=True):
        return bool(metric.compared(scout, jnp.asarray(curvature), jnp.array(wanted)).is_apart)

    assert not is_apart(scout, 1.0) and not is_apart(scout, 100.0, wanted=False)
    assert is_apart(scout, 100.0) and is_apart(scout, jnp.nan)
    assert is_apart(scout._replace(is_apart=jnp.array(True)), 1.0)


LINE = np.linspace(-60, 60, 200_001)
COUNTS = np.arange(200)
FAMILIES = {
    "Normal": (lambda t: dist.Normal(t, 0.5), LINE),
    "LogNormal": (lambda t: dist.LogNormal(t, 0.5), np.exp(LINE / 10)),
    "StudentT": (lambda t: dist.StudentT(5.0, t, 0.5), LINE),
    "Cauchy": (lambda t: dist.Cauchy(t, 0.02), LINE / 10),
    "Laplace": (lambda t: dist.Laplace(t, 0.5), LINE / 3),
    "Logistic": (lambda t: dist.Logistic(t, 0.5), LINE),
    "Gumbel": (lambda t: dist.Gumbel(t, 0.5), LINE / 2),
    "Poisson": (lambda t: dist.Poisson(jnp.exp(t)), COUNTS),
    "Exponential": (lambda t: dist.Exponential(jnp.exp(t)), np.exp(LINE / 4)),
    "Bernoulli": (lambda t: dist.Bernoulli(probs=t), COUNTS[:2]),
    "Bernoulli logits": (lambda t: dist.Bernoulli(logits=t), COUNTS[:2]),
    "Binomial": (lambda t: dist.Binomial(7, logits=t), COUNTS[:8]),
}


def locations_of(likelihood, value):
    """As a function of a number."""

    def found(t):
        sites = trace(lambda: numpyro.sample("y", likelihood(t), obs=value)).get_trace()
        return standard_locations(sites, jnp.float32)

    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_fisher_information_of_each_kind_of_data(name):
    r""":math:`E[(\partial_t \log p(y; t))^2]`, by quadrature or a sum."""
    likelihood, values = FAMILIES[name]
    t = 0.3
    y = jnp.asarray(values)
    p = np.exp(np.asarray(likelihood(t).log_prob(y), np.float64))
    weight = p if values.dtype.kind == "i" else p * np.gradient(values)
    assert abs(weight.sum() - 1) < 5e-3
    score = jax.jacfwd(lambda t: likelihood(t).log_prob(y))(t)
    information = np.sum(weight * np.asarray(score, np.float64) ** 2)
    slope = jax.jacfwd(locations_of(likelihood, y[0]))(t)
    np.testing.assert_allclose(np.sum(slope**2), information, rtol=2e-2)


def test_powers_masks_and_correlations_count():
    covariance = np.array([[1.0, 0.6], [0.6, 2.0]])

    def model(t):
        with numpyro.plate("n", 3), mask(mask=jnp.array([True, False, True])), scale(scale=4.0):
            numpyro.sample("y", dist.Normal(t * jnp.ones((3, 2)), 0.5).to_event(1), obs=0.0)
        numpyro.sample("z", dist.MultivariateNormal(t * jnp.ones(2), covariance), obs=jnp.zeros(2))
        numpyro.factor("f", t)

    slope = jax.jacfwd(lambda t: standard_locations(trace(model).get_trace(t), jnp.float32))(1.0)
    expected = 4 * 4 / 0.25 + np.linalg.inv(covariance).sum()
    np.testing.assert_allclose(np.sum(slope**2), expected, rtol=1e-5)


def walk_of(gradient, locations, sigma, x, num_levels, **settings):
    """Chains after levels that are all alike, from the points `x`, shape `(n, d)`."""
    d = x.shape[1]
    groups = SiteGroups(np.zeros(d, int), np.array([False]))
    langevin = GroupedLangevin(groups, 5, **settings)
    metric = LevelMetric(
        ns.GaussNewton(), lambda _, x: locations(x), groups.index == 0, sigma, x[0]
    )
    always = jnp.array(True)

    def chain(key, x, start_of_scout):
        key_noise, key_directions, key_levels = random.split(key, 3)

        def level(carry, key):
            walk, scout = carry
            key, key_scout = random.split(key)
            scout = metric.moved(key_scout, scout, walk.x, gradient, sigma, 1.0, always)
            walk, num_grad_evals = langevin.run(key, walk, gradient, sigma, 10, root=scout.root)
            return (walk, scout), num_grad_evals

        start = langevin.start(x, key_noise, key_directions), metric.start(start_of_scout, sigma)
        (walk, _), num_grad_evals = jax.lax.scan(level, start, random.split(key_levels, num_levels))
        return walk.x, num_grad_evals

    keys = random.split(random.key(0), len(x))
    return jax.jit(jax.vmap(chain))(keys, x, jnp.roll(x, 1, axis=0))


@pytest.mark.usefixtures("quick_compilation")
def test_a_stiff_gaussian_is_reached_in_a_few_steps():
    """
    Precisions of 1, 10^3 and 10^6, all alike in the metric: after five steps of h = 1/2 the start
    is forgotten but for 2^-5, and the stationary variances are exact.
    """
    sigma = jnp.asarray(1.0)
    roots = jnp.sqrt(jnp.array([0.0, 1e3, 1e6]))
    start = jnp.array([1.0, 0.1, 0.1])
    x, num_grad_evals = walk_of(
        lambda x: (1 + roots**2) * x,
        lambda x: roots * x,
        sigma,
        jnp.tile(start, (4_000, 1)),
        1,
        integrator=ns.LeimkuhlerMatthews(),
    )
    assert set(np.unique(num_grad_evals)) == {5 + 1 + 20}
    sd = 1 / np.sqrt(1 + np.asarray(roots, np.float64) ** 2)
    offset = (np.asarray(x, np.float64).mean(axis=0) / start) * 32
    error = 32 * sd / start / np.sqrt(len(x))
    assert np.all(np.abs(offset - 1) < 0.15 + 4 * error)
    np.testing.assert_allclose(x.std(axis=0) / sd, 1, atol=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_ring_that_is_thin_is_found_whole():
    """
    |x|^2 of a standard normal in the plane, measured with noise 0.05 where a step goes far beyond:
    on the ring all angles are alike, and a metric of one is wrong for all others.
    """

    def model():
        prior = ns.DiffusionPrior(
            lambda x, sigma: x / (1 + sigma**2), ns.VarianceExploding(0.02, 20.0), 2
        )
        x = jnp.asarray(numpyro.sample("x", prior))
        numpyro.sample("y", dist.Normal(jnp.sum(x**2), 0.05), obs=2.0)

    state = draw(ns.AnnealedLangevin(model), random.key(0), 1_000, None)
    x = np.asarray(state.z["x"], np.float64)
    square = (x**2).sum(axis=1)
    assert abs(square.mean() - 2.0) < 0.015
    np.testing.assert_allclose(square.std(), 0.05, rtol=0.15)
    assert np.abs(x.mean(axis=0)).max() < 4 / np.sqrt(1_000)
    np.testing.assert_allclose((x**2).mean(axis=0), 1.0, atol=4 * np.sqrt(0.5 / 1_000))


def test_a_bent_operator_leaves_its_posterior_as_it_is():
    """
    N(0, I) in two dimensions, of which a parabola is measured with noise 0.05: exact draws remain
    such, though their metrics are of other points of it. (A step of 0.1 goes so far along it that
    the mean across is 0.14 standard deviations off.)
    """
    noise, sigma = 0.05, jnp.asarray(0.05)

    def operator(x):
        return x[..., :1] + 0.3 * x[..., 1:] ** 2

    def gradient(x):
        return jax.grad(lambda x: (x @ x + jnp.sum((1 - operator(x)) ** 2) / noise**2) / 2)(x)

    rng = np.random.default_rng(0)
    second = np.linspace(-5, 5, 4_001)
    first = 1 - 0.3 * second**2
    # The first number given the second is Gaussian; the second alone by summing on a grid.
    p = np.exp(-(second**2) / 2 - first**2 / 2 / (1 + noise**2))
    second = rng.choice(second, 4_000, p=p / p.sum())
    shrunk = (1 - 0.3 * second**2) / (1 + noise**2)
    first = shrunk + noise / np.sqrt(1 + noise**2) * rng.normal(size=4_000)
    exact = np.stack([first, second], axis=1)
    x, _ = walk_of(
        gradient, partial(lambda x: operator(x) / noise), sigma, jnp.asarray(exact, jnp.float32), 20
    )
    x = np.asarray(x, np.float64)
    for f in (operator, lambda x: np.abs(x[:, 1]), lambda x: x[:, 0]):
        before, after = f(exact), f(x)
        assert abs(after.mean() - before.mean()) < 0.1 * before.std()
        assert abs(after.std() / before.std() - 1) < 0.06


def test_a_metric_that_only_warmup_could_learn():
    with pytest.raises(ValueError, match=r"must be GaussNewton\(rank=.*got LowRank.*no warmup"):
        ns.AnnealedLangevin(lambda: None, metric=ns.LowRank())
    with pytest.raises(ValueError, match="rank must be"):
        ns.GaussNewton(0)
