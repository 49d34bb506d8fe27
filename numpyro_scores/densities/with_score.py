# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
A log density that is known by its score has two faces, a value and a gradient, and a numerical
value has not quite the score as its derivative. :func:`density_with_score` joins them: the value
comes from a quadrature, the gradient is the score itself. Metropolis kernels need the value; a
constant with a custom gradient in its place makes them wrong in silence.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def density_with_score(
    log_density: Callable[[Any, Array], Array],
    score: Callable[[Any, Array], Array],
    params: Any,
    x: Array,
) -> Array:
    """
    `log_density(params, x)`, whose derivative in `x` is `score(params, x)` to every order, and
    whose derivative in `params` is that of `log_density`.

    :param log_density: the value, a function of a pytree and a point.
    :param score: the gradient in `x`, of the shape of `x`.
    :param params: a pytree, for example a network and a noise level.
    :param x: one point.
    """
    return log_density(params, x)


@partial(density_with_score.defjvp, symbolic_zeros=True)
def _density_with_score_jvp(log_density, score, primals, tangents):
    params, x = primals
    params_dot, x_dot = tangents
    value = density_with_score(log_density, score, params, x)
    leaves = jax.tree.leaves(params_dot, is_leaf=lambda t: isinstance(t, SymbolicZero))
    if all(isinstance(t, SymbolicZero) for t in leaves):
        # Kernels differentiate in x alone: spare them a Jacobian of the whole quadrature.
        value_dot = jnp.zeros_like(value)
    else:
        params_dot = jax.tree.map(_instantiate, params_dot, is_leaf=_is_symbolic_zero)
        _, value_dot = jax.jvp(lambda p: log_density(p, x), (params,), (params_dot,))
    if not _is_symbolic_zero(x_dot):
        value_dot = value_dot + jnp.vdot(score(params, x), x_dot)
    return value, value_dot


def _is_symbolic_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _instantiate(tangent: Any) -> Any:
    return jnp.zeros(tangent.shape, tangent.dtype) if _is_symbolic_zero(tangent) else tangent
