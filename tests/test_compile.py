# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Programs are kept for what can hide no weights, and only for that."""

import functools

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

KEY = random.key(0)
X = jnp.array([[0.3], [-1.2]])
GLOBAL = eqx.nn.Linear(1, 1, key=KEY)


class Plain:
    """An object that JAX knows nothing of."""

    def __init__(self):
        self.weight = jnp.array(2.0)

    def score(self, x):
        return -self.weight * x


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
        return GLOBAL(x)


OPAQUE = {
    "array": lambda x: x * ARRAY,
    "dict of modules": lambda x: HOLDER["net"](x),
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
    process = ns.VarianceExploding(0.1, 30.0)
    denoised = ns.DiffusionPrior(Power(jnp.array(3.0), 2), process, 1)
    found = jax.jit(lambda prior: prior.denoise(jnp.ones(1), 1.0))(denoised)
    np.testing.assert_allclose(found, [4.5], rtol=1e-6)
