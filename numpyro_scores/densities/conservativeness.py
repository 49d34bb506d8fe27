# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""How far a vector field is from the gradient of a log density.

A field on all of space is a gradient if and only if its Jacobian is symmetric everywhere, and also
if and only if its integral round every closed loop is zero. Both are measured: the first at points,
the second between them, in nats.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._callables import Score, as_pytree, as_score, check_field, is_density
from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_batch, check_count, check_finite
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.traces import rademacher


class Conservativeness(NamedTuple):
    """
    What :func:`conservativeness` returns. Each number is 0 for a gradient field; all have shape
    `()`.

    - **asymmetry** - size of the antisymmetric part of the Jacobian over that of the Jacobian, from
      0 to 1.
    - **loop_residual** - integral round a triangle, root mean square, in nats: by how much a
      difference of two log densities depends on the path.
    - **relative_loop_residual** - the same over the integral of the sides' absolute values, from 0
      to 1.
    """

    asymmetry: Array
    loop_residual: Array
    relative_loop_residual: Array


def conservativeness(
    score: Score,
    x: Array,
    *,
    key: Array,
    num_probes: int = 4,
    num_loops: int = 64,
    quadrature: LineIntegral = LineIntegral(),
) -> Conservativeness:
    r"""
    Measure how far a score is from the gradient of a log density: by its Jacobian at the points
    (:func:`jacobian_asymmetry`), and by its integrals :math:`I_{ab} = \int_a^b s \cdot dx` along
    the sides of triangles :math:`abc` with random distinct points for corners,

    .. math:: \text{loop residual} = \sqrt{\langle (I_{ab} + I_{bc} + I_{ca})^2 \rangle},
        \quad
        \text{relative} = \sqrt{\frac{\langle (I_{ab} + I_{bc} + I_{ca})^2 \rangle}
        {\langle (|I_{ab}| + |I_{bc}| + |I_{ca}|)^2 \rangle}},

    with the mean over the triangles. A residual is the difference between the log density ratio of
    `b` and `c` by way of the reference `a`, as of `ScoreDistribution`, and the one along the
    segment between them. By Stokes' theorem it is :math:`(c - a) \cdot A (b - a)` where the
    antisymmetric part `A` of the Jacobian is constant. The error of the quadrature is part of it: a
    residual without an asymmetry tells of too few nodes.

    :param score: the score of one point, `x -> x.shape`, or a distribution.
    :param x: at least 3 points, shape `(n, *event_shape)`, where it matters: draws of a chain, or
        data with the noise of the score's noise level.
    :param key: key of the probes and of the triangles.
    :param num_probes: number of probes at each point; the cost is about `4 * num_probes * n`
        evaluations.
    :param num_loops: number of triangles; the cost is `3 * num_nodes * num_loops` evaluations.
    :param quadrature: how a side is integrated.
    :return: asymmetry and residuals; NaN if the score is not finite where it is evaluated.
    :raises ValueError: if the shape of `x` or of the score is another, if a point is not finite,
        or if a number of probes or loops is not a positive integer.
    """
    check_count("num_loops", num_loops)
    x = _points(x)
    if len(x) < 3:
        raise ValueError(
            f"conservativeness needs at least 3 points, the corners of a triangle, got {len(x)}. "
            "Give more draws of the chain, or noisy copies of the point."
        )
    key_probes, key_loops = random.split(key)
    asymmetry = jacobian_asymmetry(score, x, key=key_probes, num_probes=num_probes)
    score, triangles = as_pytree("score", score), _triangles(key_loops, x, num_loops)
    residuals = compiled(_loop_residuals, score, triangles, quadrature=quadrature)
    return Conservativeness(asymmetry, *residuals)


@partial(jax.jit, static_argnums=2)
def _triangles(key: Array, x: Array, num_loops: int) -> Array:
    """Of three points each, drawn at random."""

    def distinct(key):
        return random.choice(key, len(x), (3,), replace=False)

    return x[jax.vmap(distinct)(random.split(key, num_loops))]


def jacobian_asymmetry(score: Score, x: Array, *, key: Array, num_probes: int = 4) -> Array:
    r"""
    The size of the antisymmetric part of a score's Jacobian :math:`J` over that of the Jacobian,

    .. math:: \sqrt{\frac{\langle |J - J^T|_F^2 \rangle}{4 \langle |J|_F^2 \rangle}}
        = \sqrt{\frac{\langle |J v - J^T v|^2 \rangle}
        {2 \langle |J v|^2 + |J^T v|^2 \rangle}},

    with the mean over the points and, since :math:`E |B v|^2 = |B|_F^2` for any matrix, over
    Rademacher probes `v`: numerator and denominator under the root are unbiased. It is 0 for a
    gradient field, 1 for a pure rotation, between them for every choice of probes, and the same for
    every multiple of the score and in all units of `x`.

    :param score: the score of one point, `x -> x.shape`, or a distribution.
    :param x: points, shape `(n, *event_shape)`, one at least.
    :param key: key of the probes.
    :param num_probes: number of probes at each point, each of a Jacobian-vector product and a
        vector-Jacobian product.
    :return: the asymmetry, shape `()`; 0 for a constant score.
    :raises ValueError: as :func:`conservativeness`.
    """
    check_count("num_probes", num_probes)
    x = _points(x)
    probes = rademacher(key, (len(x), num_probes, *x.shape[1:]), x.dtype)
    return compiled(_asymmetry, as_pytree("score", score), x, probes)


def _points(x):
    check_batch("x", x)
    check_finite("x", "points", x, "leave them out")
    x = jnp.asarray(x)
    return x.astype(jnp.result_type(x, float))


def _checked_score(score, x):
    score = as_score(score, x) if is_density(score) else score
    check_field("score", score, x)
    return score


def _asymmetry(score, x, probes):
    score = _checked_score(score, x[0])

    def squares(point_and_probes):
        point, v = point_and_probes
        _, jvp = jax.linearize(score, point)
        vjp = jax.linear_transpose(jvp, point)
        forward, (backward,) = jax.vmap(jvp)(v), jax.vmap(vjp)(v)
        return jnp.sum((forward - backward) ** 2), jnp.sum((forward + backward) ** 2)

    # One point at a time: a network's memory is that of the probes at one point.
    antisymmetric, symmetric = lax.map(squares, (x, probes))
    # The parallelogram law: |Jv - J'v|^2 + |Jv + J'v|^2 = 2 |Jv|^2 + 2 |J'v|^2.
    return _root_of_ratio(jnp.sum(antisymmetric), jnp.sum(antisymmetric + symmetric))


def _loop_residuals(score, triangles, quadrature):
    score = _checked_score(score, triangles[0, 0])

    def sides(corners):
        return jax.vmap(partial(quadrature, score))(corners, jnp.roll(corners, -1, axis=0))

    integrals = lax.map(sides, triangles)
    residual = jnp.mean(jnp.sum(integrals, axis=1) ** 2)
    size = jnp.mean(jnp.sum(jnp.abs(integrals), axis=1) ** 2)
    return jnp.sqrt(residual), _root_of_ratio(residual, size)


def _root_of_ratio(part, whole):
    # Where neither the Jacobian nor the work along a side is other than zero, 0 and not 0 / 0.
    return jnp.sqrt(part / jnp.where(whole == 0, 1, whole))
