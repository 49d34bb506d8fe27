# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Weights that are trained in place are seen by every public call."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax import random

import numpyro_scores as ns
from numpyro_scores import _compile

PROCESS = ns.VarianceExploding(0.1, 30.0)
SAMPLER = ns.samplers.Heun(num_steps=4)
KEY = random.key(0)
X = 5.0 + random.normal(KEY, (20, 1))


class Net(nnx.Module):
    """The denoiser of N(m, 1), with its score as a method."""

    def __init__(self):
        self.m = nnx.Param(jnp.array(0.0))

    def __call__(self, x, sigma):
        return (x + sigma**2 * self.m[...]) / (1 + sigma**2)

    def score(self, x):
        return self.m[...] - x


class Plain:
    """An object that JAX knows nothing of."""

    def __init__(self):
        self.net = Net()

    def denoise(self, x, sigma):
        return self.net(x, sigma)

    def score(self, x):
        return self.net.score(x)


GLOBAL = Net()


def denoiser_of_a_global(x, sigma):
    return GLOBAL(x, sigma)


def score_of_a_global(x):
    return GLOBAL.score(x)


def closed_over(net):
    return lambda x, sigma: net(x, sigma), lambda x: net.score(x)


def dict_of_arrays():
    weights = {"m": jnp.array(0.0)}

    def train():
        weights["m"] = jnp.array(5.0)

    def denoiser(x, sigma):
        return (x + sigma**2 * weights["m"]) / (1 + sigma**2)

    return denoiser, lambda x: weights["m"] - x, train


def make(kind):
    """A denoiser and a score of N(0, 1), and what makes them those of N(5, 1)."""
    net, plain = Net(), Plain()

    def train():
        net.m[...] = jnp.array(5.0)

    def train_plain():
        plain.net.m[...] = jnp.array(5.0)

    def rebind():
        global GLOBAL
        GLOBAL = Net()
        GLOBAL.m[...] = jnp.array(5.0)

    if kind == "global":
        GLOBAL.m[...] = jnp.array(0.0)
    return {
        "module": lambda: (net, net.score, train),
        "closure": lambda: (*closed_over(net), train),
        "global": lambda: (denoiser_of_a_global, score_of_a_global, rebind),
        "dict": dict_of_arrays,
        "method": lambda: (plain.denoise, plain.score, train_plain),
        "partial": lambda: (functools.partial(net), functools.partial(Net.score, net), train),
        "jax partial": lambda: (
            jax.tree_util.Partial(net),
            jax.tree_util.Partial(functools.partial(Net.score, net)),
            train,
        ),
    }[kind]()


KINDS = ["module", "closure", "global", "dict", "method", "partial", "jax partial"]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("kind", KINDS)
def test_priors_see_what_was_trained_in_place(kind):
    denoiser, _, train = make(kind)
    prior = ns.DiffusionPrior(denoiser, PROCESS, 1, sampler=SAMPLER)

    def found(prior):
        flow = ns.ProbabilityFlow(num_steps=8)
        at_5 = jnp.array([5.0])
        return [
            prior.sample(KEY, (50,)).mean(),
            prior.log_prob(at_5),
            prior.score(at_5)[0],
            prior.denoise(at_5, 1.0)[0],
            prior.log_likelihood(at_5, flow=flow).nats,
        ]

    peak = -0.5 * np.log(2 * np.pi * 1.01)
    before = [0.0, peak - 25 / 2.02, -5 / 1.01, 2.5, peak - 25 / 2.02]
    after = [5.0, peak, 0.0, 5.0, peak]
    np.testing.assert_allclose(found(prior), before, atol=0.4)
    train()
    np.testing.assert_allclose(found(prior), after, atol=0.4)
    again = ns.DiffusionPrior(denoiser, PROCESS, 1, sampler=SAMPLER)
    np.testing.assert_allclose(found(again), after, atol=0.4)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("kind", KINDS)
def test_diagnostics_see_what_was_trained_in_place(kind):
    _, score, train = make(kind)
    d = ns.diagnostics

    def found():
        return {
            "stein": d.kernel_stein_discrepancy(X, score).v_statistic,
            "set": d.finite_set_stein_discrepancy(X, score, key=KEY, num_bootstrap=10).statistic,
            "fisher": d.fisher_divergence(X, score, lambda x: 5.0 - x).value,
            "thinned": d.stein_thinning(X, score, 3).discrepancy[-1],
        }

    before = found()
    train()
    after = found()
    assert after["fisher"] < 1e-10 and before["fisher"] > 12
    for name in ("stein", "set", "thinned"):
        assert after[name] < before[name] / 3, name


@pytest.mark.usefixtures("quick_compilation")
def test_conservativeness_features_and_generators_see_it_too():
    net = Net()

    def field(x):
        return jnp.array([net.m[...] * x[1], -x[0]])

    points = random.normal(KEY, (5, 2))
    # The Jacobian [[0, m], [-1, 0]] is antisymmetric for m = 1 and symmetric for m = -1.
    for m, asymmetry in ((1.0, 1.0), (-1.0, 0.0)):
        net.m[...] = jnp.array(m)
        found = ns.diagnostics.conservativeness(field, points, key=KEY, num_loops=4)
        np.testing.assert_allclose(found.asymmetry, asymmetry, atol=1e-6)
        assert (found.loop_residual > 1e-3) == (asymmetry > 0)

    def shifted(x):
        return x + net.m[...]

    prior = ns.GeneratorPrior(shifted, 1)
    for m in (0.0, 3.0):
        net.m[...] = jnp.array(m)
        found = ns.diagnostics.frechet_distance(X, X - 3, features=lambda x: shifted(x) * net.m)
        np.testing.assert_allclose(found[0], 9 * m**2, rtol=0.01, atol=1e-4)
        np.testing.assert_allclose(prior.sample(KEY, (200,)).mean(), m, atol=0.3)


def test_energies_see_it_too():
    net = Net()

    def energy(x):
        return jnp.sum((x - net.m[...]) ** 2) / 2

    sampler = functools.partial(ns.MALA, step_size=0.5, num_steps=20)
    prior = ns.EnergyDistribution(energy, 1, sampler=sampler)
    product = ns.ProductOfExperts([ns.EnergyDistribution(energy, 1)])
    score = ns.ScoreDistribution(lambda x: net.m[...] - x, 1)
    for m in (0.0, 5.0):
        net.m[...] = jnp.array(m)
        np.testing.assert_allclose(prior.sample(KEY, (200,)).mean(), m, atol=0.3)
        for density in (prior, product):
            np.testing.assert_allclose(density.log_prob(jnp.zeros(1)), -(m**2) / 2, rtol=1e-5)
        np.testing.assert_allclose(score.log_prob(jnp.ones(1)), m - 0.5, rtol=1e-5)


def test_kernels_classifiers_and_joint_densities_see_it_too():
    net, d = Net(), ns.diagnostics

    def log_joint(z, y):
        return jnp.sum(dist.Normal().log_prob(z) + dist.Normal(net.m[...]).log_prob(y))

    def slope(points, labels, weights, *, key):
        return jax.tree_util.Partial(lambda m, x: m * x[0], net.m[...])

    def radial(squares):
        return net.m[...] * jnp.exp(-squares)

    def standard(y):
        return dist.Normal().expand([1])

    settings = {"key": KEY, "num_permutations": 9}
    for m in (1.0, 3.0):
        net.m[...] = jnp.array(m)
        found = d.importance_log_likelihood(log_joint, standard, X[:2], key=KEY, num_draws=3)
        exact = dist.Normal(m).log_prob(X[:2, 0])
        np.testing.assert_allclose(found.log_likelihood, exact, atol=1e-5)
        statistics = [
            d.mmd_test(X, X - 3, kernel=radial, lengthscale=1.0, **settings).statistic,
            d.linear_mmd_test(X, X - 3, kernel=radial, lengthscale=1.0).statistic,
            d.classifier_two_sample_test(X, X - 3, classifier=slope, **settings).statistic,
        ]
        if m == 1:
            once = np.array(statistics)
    np.testing.assert_allclose(statistics, 3 * once, rtol=1e-4)


def test_the_weights_of_a_closure_are_let_go():
    net = Net()
    prior = ns.DiffusionPrior(closed_over(net)[0], PROCESS, 1, sampler=ns.samplers.Heun(1))
    kept, weights = _compile._program.cache_info().currsize, []
    for m in range(5):
        net.m[...] = jnp.full((), float(m))
        weights.append(weakref.ref(net.m[...]))
        prior.sample(KEY)
    gc.collect()
    assert [w() is not None for w in weights] == [False] * 4 + [True]
    assert _compile._program.cache_info().currsize == kept


def test_a_function_that_holds_weights_is_let_go():
    weights = []
    for _ in range(3):
        weight = jnp.ones(1)
        weights.append(weakref.ref(weight))
        ns.ScoreDistribution(functools.partial(lambda w, x: w - x, weight), 1).log_prob(jnp.ones(1))
        ns.ScoreDistribution(closed_over_array(weight), 1).log_prob(jnp.ones(1))
        del weight
    gc.collect()
    assert [w() is None for w in weights] == [True] * 3


def closed_over_array(weight):
    return lambda x: weight - x
