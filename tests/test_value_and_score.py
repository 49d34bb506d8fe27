# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The value of one function with the gradient of another."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_scores.densities.with_score import density_with_score

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = np.array([0.3, -1.4, 2.0])


def value(params, x):
    """Some function of the parameters and of the point."""
    return jnp.sin(params["a"]) * jnp.sum(x**3) + params["a"] * params["b"] * x[0]


def field(params, x):
    """A field that is no gradient, of this or any other function."""
    rotation = jnp.array([[0.5, 1.0, 0.0], [-2.0, 0.3, 0.7], [0.0, 0.0, 1.0]])
    return params["b"] * rotation @ jnp.tanh(x) + params["a"]


PARAMS = {"a": 0.7, "b": -1.3}
density = partial(density_with_score, value, field)


def test_the_value_is_the_rule_and_the_gradient_is_the_score(x64):
    np.testing.assert_array_equal(density(PARAMS, X), value(PARAMS, X))
    both = jax.jit(jax.value_and_grad(density, argnums=1))(PARAMS, X)
    np.testing.assert_allclose(both[0], value(PARAMS, X), rtol=1e-14)
    np.testing.assert_allclose(both[1], field(PARAMS, X), rtol=1e-14)


def test_the_hessian_is_the_jacobian_of_the_score(x64):
    jacobian = jax.jacobian(field, argnums=1)
    hessian = jax.jit(jax.hessian(density, argnums=1))(PARAMS, X)
    np.testing.assert_allclose(hessian, jax.jit(jacobian)(PARAMS, X), rtol=1e-14)
    third = jax.jit(jax.jacobian(jax.hessian(density, argnums=1), argnums=1))(PARAMS, X)
    expected = jax.jit(jax.jacobian(jacobian, argnums=1))(PARAMS, X)
    np.testing.assert_allclose(third, expected, rtol=1e-13)


def test_the_value_beside_the_gradient_has_the_score_as_its_derivative(x64):
    def value_beside_gradient(x):
        return jax.value_and_grad(density, argnums=1)(PARAMS, x)[0]

    slope = jax.jit(jax.grad(value_beside_gradient))(X)
    np.testing.assert_allclose(slope, field(PARAMS, X), rtol=1e-14)


def test_the_derivative_in_the_parameters_is_that_of_the_value(x64):
    grad = jax.grad(density)(PARAMS, X)
    h = 1e-5
    for name in PARAMS:
        up, down = (value(PARAMS | {name: PARAMS[name] + step}, X) for step in (h, -h))
        np.testing.assert_allclose(grad[name], (up - down) / (2 * h), rtol=1e-8)


def test_the_derivative_of_the_gradient_in_the_parameters_is_that_of_the_score(x64):
    mixed = jax.jacobian(jax.grad(density, argnums=1), argnums=0)(PARAMS, X)
    expected = jax.jacobian(field, argnums=0)(PARAMS, X)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-14), mixed, expected)


def test_both_derivatives_add_up(x64):
    # Parameters and the point move together, and one parameter does not move.
    direction = np.array([1.0, 0.0, -2.0])

    def along(t):
        return density(PARAMS | {"a": PARAMS["a"] + 3.0 * t}, X + t * direction)

    expected = 3.0 * jax.grad(value)(PARAMS, X)["a"] + direction @ field(PARAMS, X)
    np.testing.assert_allclose(jax.jvp(along, (0.0,), (1.0,))[1], expected, rtol=1e-13)
    np.testing.assert_allclose(jax.grad(along)(0.0), expected, rtol=1e-13)


def test_parameters_without_a_derivative_are_allowed(x64):
    # A network may hold a counter and a random key beside its weights.
    params = {**PARAMS, "count": jnp.int32(3), "key": jax.random.key(0)}

    def of_a(a):
        return density(params | {"a": a}, X)

    np.testing.assert_allclose(jax.grad(of_a)(0.7), jax.grad(value)(PARAMS, X)["a"], rtol=1e-14)
    np.testing.assert_array_equal(jax.grad(density, argnums=1)(params, X), field(PARAMS, X))


@jax.custom_jvp
def no_derivative(y):
    return y


@no_derivative.defjvp
def _no_derivative_jvp(primals, tangents):
    raise AssertionError("the quadrature was differentiated")


def evaluate_only(params, x):
    return no_derivative(value(params, x))


def through_jit(f):
    return jax.grad(jax.jit(f))


def through_jit_and_vmap(f):
    return lambda x: jax.jit(jax.vmap(jax.grad(f)))(jnp.stack([x, x]))[1]


def through_a_loop(f):
    return lambda x: jax.lax.fori_loop(0, 2, lambda i, grad: grad + jax.grad(f)(x) / 2, 0.0 * x)


def through_scan(f):
    def scanned(x):
        return jax.lax.scan(lambda total, _: (total + f(x) / 2, None), 0.0, length=2)[0]

    return jax.grad(scanned)


@pytest.mark.parametrize(
    "gradient", [jax.grad, through_jit, through_jit_and_vmap, through_a_loop, through_scan]
)
def test_the_gradient_in_the_point_does_not_differentiate_the_quadrature(x64, gradient):
    grad = gradient(partial(density_with_score, evaluate_only, field, PARAMS))(X)
    np.testing.assert_allclose(grad, field(PARAMS, X), rtol=1e-13)


def test_the_hessian_does_not_differentiate_the_quadrature(x64):
    # Hessian-vector products are what a step that follows the curvature asks for.
    grad = jax.grad(partial(density_with_score, evaluate_only, field, PARAMS))
    direction = np.array([1.0, 0.0, -2.0])
    found = jax.jvp(grad, (X,), (direction,))[1]
    np.testing.assert_allclose(found, jax.jacobian(field, argnums=1)(PARAMS, X) @ direction)


def test_the_gradient_in_the_parameters_does():
    with pytest.raises(AssertionError, match="the quadrature was differentiated"):
        jax.grad(partial(density_with_score, evaluate_only, field))(PARAMS, X)
