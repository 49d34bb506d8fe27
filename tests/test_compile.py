# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Weights that are trained in place are seen by every public call; what can't hide any is kept."""

import functools
import gc
import weakref

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import random

import numpyro_scores as ns
from numpyro_scores import _compile
from numpyro_scores._callables import as_pytree
from numpyro_scores._compile import compiled, compiled_if_kept
from numpyro_scores._hidden_state import Opaque, reached

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


class Equinox(eqx.Module):
    mlp: eqx.nn.MLP
    depth: int = 2

    def __call__(self, x):
        for _ in range(self.depth):
            x = self.mlp(x)
        return x


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(x)


def by_layers(weight, num_layers, x, gain=1.0):
    for _ in range(num_layers):
        x = jnp.tanh(weight * x)
    return gain * x


FACTOR = 2.0


def scaled(x):
    return FACTOR * jnp.sum(x)


def uses_scaled(x):
    return scaled(x) + 1


def recursive():
    def power(x, n=3):
        return x if n == 0 else x * power(x, n - 1)

    return power


def linen_callable():
    network = Linen()
    return functools.partial(network.apply, network.init(KEY, X[0]))


TRANSPARENT = {
    "module": lambda: ns.nn.MLPEnergy(1, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1),
    "equinox": lambda: Equinox(eqx.nn.MLP(1, 1, 4, 1, key=KEY)),
    "linen": linen_callable,
    "partial": lambda: functools.partial(by_layers, jnp.array(0.5), 3, gain=2.0),
    "jax partial": lambda: jax.tree_util.Partial(by_layers, jnp.array(0.5), 3),
    "function": lambda: uses_scaled,
    "library": lambda: jax.nn.silu,
    "recursive": recursive,
}


def value(f, x):
    value.num_traces += 1
    return f(x)


value.num_traces = 0


@pytest.mark.parametrize("call", [compiled, compiled_if_kept])
@pytest.mark.parametrize("name", TRANSPARENT)
def test_what_can_hide_nothing_is_traced_once(name, call):
    _compile._program.cache_clear()
    f, value.num_traces = TRANSPARENT[name](), 0
    expected = f(X[0])
    for _ in range(3):
        np.testing.assert_allclose(call(value, as_pytree("f", f), X[0]), expected, rtol=1e-5)
    assert value.num_traces == 1


def test_a_number_or_a_function_that_is_bound_anew_is_noticed(monkeypatch):
    f = as_pytree("f", uses_scaled)
    assert compiled(value, f, jnp.ones(2)) == 5
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert compiled(value, f, jnp.ones(2)) == 7
    monkeypatch.setitem(globals(), "scaled", lambda x: jnp.prod(x))
    assert compiled(value, f, jnp.ones(2)) == 2


ARRAY = np.array(2.0)
HOLDER = {"net": GLOBAL}


class Settings:
    gain = jnp.array(1.0)


class ReadsAGlobal(nnx.Module):
    def __call__(self, x):
        return GLOBAL(x, 1.0)


OPAQUE = {
    "array": lambda x: x * ARRAY,
    "dict of modules": lambda x: HOLDER["net"](x, 1.0),
    "class attribute": lambda x: x * Settings.gain,
    "module that reads a global": ReadsAGlobal(),
    "default": lambda x, weight=ARRAY: x * weight,
    "jitted": jax.jit(lambda x: x * ARRAY),
    "method": Plain().score,
    "anything": lambda x: eval("x * ARRAY"),
    "import": lambda x: __import__("os"),
    "partial": functools.partial(lambda f, x: f(x), Plain().score),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_what_may_hide_weights_is_opaque(name):
    f = OPAQUE[name]
    with pytest.raises(Opaque):
        reached(jax.tree.structure(f), jax.tree.leaves(f))


@jax.tree_util.register_pytree_node_class
class Power:
    """w^n x: the number n of factors is a leaf."""

    def __init__(self, w, n):
        self.w, self.n = w, n

    def tree_flatten(self):
        return (self.w, self.n), None

    @classmethod
    def tree_unflatten(cls, _, children):
        power = object.__new__(cls)
        power.w, power.n = children
        return power

    def __call__(self, x, sigma=None):
        for _ in range(self.n):
            x = self.w * x
        return jnp.sum(x**2) if sigma is None else x / (1 + sigma**2)


def test_an_integer_that_steers_python_code_may_be_a_leaf():
    sampler = functools.partial(ns.MALA, step_size=0.01, num_steps=2)
    prior = ns.EnergyDistribution(Power(jnp.array(3.0), 2), 1, sampler=sampler)
    assert prior.sample(KEY).shape == (1,)
    for log_prob in (prior.log_prob, jax.jit(prior.log_prob)):
        np.testing.assert_allclose(log_prob(jnp.ones(1)), -81.0, rtol=1e-6)
    crossed = jax.jit(lambda prior, x: prior.log_prob(x))(prior, jnp.ones(1))
    np.testing.assert_allclose(crossed, -81.0, rtol=1e-6)
    # A batch of distributions: the weight is mapped, the number is what it is.
    batch = jax.tree.map(lambda w: jnp.stack([w, w / 3]), prior)
    found = jax.vmap(lambda prior: prior.log_prob(jnp.ones(1)))(batch)
    np.testing.assert_allclose(found, [-81.0, -1.0], rtol=1e-6)
    denoised = ns.DiffusionPrior(Power(jnp.array(3.0), 2), PROCESS, 1)
    found = jax.jit(lambda prior: prior.denoise(jnp.ones(1), 1.0))(denoised)
    np.testing.assert_allclose(found, [4.5], rtol=1e-6)
