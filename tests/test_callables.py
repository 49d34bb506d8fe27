# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Any callable becomes a pytree whose arrays are leaves; energies and scores are told apart."""

import functools
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from numpyro_scores._callables import as_pytree, as_score, check_field
from numpyro_scores.nn import MLPEnergy

SHAPE = (2, 2)
X = np.array([[0.3, -1.2], [0.7, 2.0]], np.float32)


def energy(x):
    return jnp.sum(x**4) / 4 + x[0, 0] * x[1, 1]


def scaled(scale, x, offset=0.0):
    return scale * jnp.sum(x) + offset


def scaled_of(f, scale, x):
    return scale * f(x)


@jax.tree_util.register_dataclass
@dataclass
class Composed:
    """A callable of the user's own that is a pytree with a function as a leaf."""

    f: Callable
    scale: jax.Array

    def __call__(self, x):
        return self.scale * self.f(x)


@jax.tree_util.register_dataclass
@dataclass
class Scaled:
    """A callable of the user's own that is a pytree."""

    scale: jax.Array

    def __call__(self, x):
        return self.scale * jnp.sum(x)


class Opaque:
    """A callable of the user's own that is not."""

    def __call__(self, x):
        return jnp.sum(x)


CALLABLES = {
    "function": lambda: energy,
    "partial": lambda: functools.partial(scaled, jnp.array(2.0), offset=jnp.array(1.0)),
    "jax partial": lambda: jax.tree_util.Partial(scaled, jnp.array(2.0)),
    "partial of a function": lambda: functools.partial(scaled_of, energy, jnp.array(2.0)),
    "jax partial of a function": lambda: jax.tree_util.Partial(scaled_of, energy, jnp.array(2.0)),
    "partial of a partial": lambda: functools.partial(
        scaled_of, functools.partial(scaled, jnp.array(3.0)), jnp.array(2.0)
    ),
    "registered with a function": lambda: Composed(energy, jnp.array(2.0)),
    "registered": lambda: Scaled(jnp.array(2.0)),
    "module": lambda: MLPEnergy(SHAPE, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1),
    "opaque": Opaque,
    "jitted": lambda: jax.jit(energy),
    "without leaves": lambda: jax.tree_util.Partial(energy),
}


@pytest.mark.parametrize("f", [make() for make in CALLABLES.values()], ids=list(CALLABLES))
def test_any_callable_crosses_jit_and_is_traced_once(f):
    traces = []

    @jax.jit
    def compiled(f, x):
        traces.append(f)
        return f(x)

    for _ in range(2):
        # Not the same object each time: a distribution is made anew in each call of a model.
        np.testing.assert_allclose(compiled(as_pytree("f", f), X), f(X), rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["jax partial", "registered", "module"])
def test_a_pytree_comes_back_unchanged(name):
    f = CALLABLES[name]()
    assert as_pytree("f", f) is f


@pytest.mark.parametrize(
    "name, num_leaves",
    [
        ("function", 0),
        ("partial", 2),
        ("module", 4),
        ("partial of a function", 1),
        ("jax partial of a function", 1),
        ("partial of a partial", 2),
        ("registered with a function", 1),
    ],
)
def test_the_arrays_of_a_callable_are_its_leaves(name, num_leaves):
    leaves = jax.tree.leaves(as_pytree("f", CALLABLES[name]()))
    assert len(leaves) == num_leaves
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)


def test_the_arguments_of_a_partial_are_mapped_and_differentiated():
    def f(scale):
        return as_pytree("f", functools.partial(scaled, scale, offset=1.0))

    scales = jnp.array([1.0, 2.0, -3.0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[f(scale) for scale in scales])
    values = jax.vmap(lambda f: f(X))(stacked)
    np.testing.assert_allclose(values, scales * X.sum() + 1, rtol=1e-6)
    scale_slope, _ = jax.tree.leaves(jax.grad(lambda f: f(X))(f(2.0)))
    np.testing.assert_allclose(scale_slope, X.sum(), rtol=1e-6)


def test_an_option_in_a_partial_is_no_leaf():
    f = as_pytree("f", functools.partial(jnp.sum, keepdims=True))
    assert jax.tree.leaves(f) == []
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(f, X), [[X.sum()]], rtol=1e-6)


def test_a_module_in_a_partial_keeps_its_weights_as_leaves():
    module = jax.tree_util.Partial(scaled, 3.0, offset=0.0)
    f = as_pytree("f", functools.partial(module))
    assert sorted(jax.tree.leaves(f)) == [0.0, 3.0]
    np.testing.assert_allclose(f(X), 3 * X.sum(), rtol=1e-6)


def test_it_pickles():
    f = pickle.loads(pickle.dumps(as_pytree("f", functools.partial(scaled, 2.0))))
    np.testing.assert_allclose(f(X), 2 * X.sum(), rtol=1e-6)


@pytest.mark.parametrize("f, came", [(3, "int"), (None, "NoneType"), (X, "ndarray")])
def test_what_cannot_be_called_is_told(f, came):
    with pytest.raises(TypeError, match=f"energy must be callable, got {came}"):
        as_pytree("energy", f)


def test_the_score_of_an_energy_is_its_negative_gradient():
    expected = -(X**3) - np.array([[X[1, 1], 0], [0, X[0, 0]]])
    np.testing.assert_allclose(as_score(energy, X)(X), expected, rtol=1e-6)


def test_a_score_comes_back_unchanged():
    assert as_score(jnp.negative, X) is jnp.negative


def test_what_is_neither_an_energy_nor_a_score_is_told():
    shapes = r"x -> \(2, 2\), for points of shape \(2, 2\), but the output has shape \(2,\)"
    with pytest.raises(ValueError, match=shapes):
        as_score(lambda x: x.sum(0), X)


def test_telling_them_apart_computes_nothing():
    def f(x):
        assert isinstance(x, jax.core.Tracer)
        return -x

    as_score(f, X)
    check_field("score", f, X)


def test_a_field_of_another_shape_is_told():
    check_field("denoiser", lambda x, sigma: x * sigma, X, 1.0)
    with pytest.raises(ValueError, match=r"denoiser must map .* got shape \(2, 2\) and .* \(4,\)"):
        check_field("denoiser", lambda x, sigma: x.ravel(), X, 1.0)
