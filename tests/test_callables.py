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
import numpyro.distributions as dist
import pytest
from flax import nnx

from numpyro_scores._callables import as_pytree, as_score, check_energy, check_field
from numpyro_scores.nn import MLPEnergy
from numpyro_scores.training import FitResult

pytestmark = pytest.mark.usefixtures("quick_compilation")

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


def with_options(f, x, mode="sum", layers=None, *, label=0):
    assert isinstance(label, int) and isinstance(layers["n"], int)
    return getattr(jnp, mode)(f(x)) * layers["scale"] + label


def test_arrays_and_options_of_nested_partials_are_told_apart():
    module = MLPEnergy(SHAPE, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    layers = {"n": 2, "scale": jnp.array(3.0), "names": ("a", None, True)}
    inner = functools.partial(with_options, module, layers=layers)
    f = as_pytree("f", functools.partial(functools.partial(inner, mode="prod"), label=1))
    assert len(jax.tree.leaves(f)) == 4 + 1
    expected = 3 * module(X) + 1
    np.testing.assert_allclose(jax.jit(lambda f: f(X))(f), expected, rtol=1e-6)
    doubled = jax.tree.map(lambda leaf: 2 * leaf if leaf.shape == () else leaf, f)
    np.testing.assert_allclose(doubled(X), 6 * module(X) + 1, rtol=1e-6)
    # Weights that are trained in place are those of the module itself.
    for path, leaf in jax.tree_util.tree_leaves_with_path(f):
        assert "object at" not in jax.tree_util.keystr(path) and leaf.dtype == jnp.float32
    weights = nnx.state(module)
    nnx.update(module, jax.tree.map(lambda w: 0 * w, weights))
    np.testing.assert_allclose(jax.jit(lambda f: f(X))(f), 3 * module(X) + 1, rtol=1e-6)
    assert not np.allclose(expected, f(X))


def test_the_weights_of_a_bound_method_are_leaves():
    module = MLPEnergy(SHAPE, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    f = as_pytree("f", module.__call__)
    assert len(jax.tree.leaves(f)) == 4
    np.testing.assert_allclose(jax.jit(lambda f: f(X))(f), module(X), rtol=1e-6)


def test_structures_of_equal_options_are_equal():
    def structure(label, kind=functools.partial):
        return jax.tree.structure(as_pytree("f", kind(scaled, jnp.array(2.0), offset=label)))

    assert structure(1) == structure(1) and hash(structure(1)) == hash(structure(1))
    assert structure(1) != structure(2)
    assert structure(1) != structure(True)


def test_what_holds_no_leaf_may_be_mapped_to_anything():
    f = as_pytree("f", functools.partial(scaled, jnp.ones(3), offset=2))
    axes = jax.tree.map(lambda _: 0, f)
    found = jax.vmap(lambda f: f(X), in_axes=(axes,))(f)
    np.testing.assert_allclose(found, [X.sum() + 2] * 3, rtol=1e-6)


def test_a_module_in_a_partial_keeps_its_weights_as_leaves():
    module = jax.tree_util.Partial(scaled, 3.0, offset=0.0)
    f = as_pytree("f", functools.partial(module))
    assert isinstance(f.wrapped, functools.partial)
    assert sorted(jax.tree.leaves(f)) == [0.0, 3.0]
    np.testing.assert_allclose(f(X), 3 * X.sum(), rtol=1e-6)


def test_it_pickles():
    f = pickle.loads(pickle.dumps(as_pytree("f", functools.partial(scaled, 2.0))))
    np.testing.assert_allclose(f(X), 2 * X.sum(), rtol=1e-6)


def test_a_result_of_training_is_no_callable():
    module = MLPEnergy(SHAPE, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    with pytest.raises(TypeError, match=r"got FitResult: what was trained is .* fitted\.module"):
        as_pytree("energy", FitResult(module, np.zeros(1)))


def test_the_score_of_a_distribution():
    normal = dist.Normal(jnp.array([1.0, 2.0]), 2.0).to_event(1)
    x = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(as_score(normal, x)(x), [0.25, 0.25], rtol=1e-6)
    with pytest.raises(ValueError, match=r"points of shape \(2,\).*event shape \(\): expand"):
        as_score(dist.Normal(0.0, 1.0), x)
    with pytest.raises(ValueError, match="discrete: it has no score"):
        as_score(dist.Bernoulli(jnp.ones(2) / 2).to_event(1), x)


@pytest.mark.parametrize(
    "f, words",
    [
        (lambda x, s: jnp.einsum("nd,de->ne", x, jnp.eye(4)), r"f\(x\[None\], sigma\)\[0\]"),
        (
            lambda x, s: jnp.einsum("nd,de,n->ne", x, jnp.eye(4), s),
            r"lambda x, sigma: f\(x\[None\], sigma\[None\]\)\[0\]",
        ),
    ],
)
def test_a_field_with_a_batch_axis_is_told(f, words):
    with pytest.raises(ValueError, match="denoiser must take one unbatched point.*" + words):
        check_field("denoiser", f, jnp.zeros(4), 1.0)


def test_a_class_in_place_of_an_instance_is_told():
    with pytest.raises(TypeError, match="energy must be an instance of MLPEnergy, got the class"):
        check_energy("energy", as_pytree("energy", MLPEnergy), X)


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
