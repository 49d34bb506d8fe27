# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Moves of a population of particles: MALA with a metric and a step size that all share."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax, random
from jax.scipy.linalg import solve_triangular

from numpyro_scores.infer.langevin.mala import MALA
from numpyro_scores.infer.langevin.segments import Point, Target
from numpyro_scores.infer.trees import mapped

ADAPTATION_RATE = 2.0  # of the logarithm of the step size; the acceptance falls by 0.3 a unit of it


class Moved(NamedTuple):
    """
    - **points** - the particles.
    - **step_size** - of the next step.
    - **accept_prob** - mean acceptance probability of the steps.
    - **num_diverging** - number of proposals that were not finite.
    - **unresolved** - share of the proposals that were refused because of the error of an integral.
    """

    points: Point
    step_size: Array
    accept_prob: Array
    num_diverging: Array
    unresolved: Array


def fisher_root(grads: Array, dense: bool) -> Array:
    r"""
    The root `R`, :math:`R^\top R = F^{-1}`, of the metric :math:`F = E[\nabla U\, \nabla U^\top]`
    (Titsias 2023, "Optimal preconditioning and Fisher adaptive Langevin sampling"). On a Gaussian
    :math:`F^{-1}` is the covariance. With several modes it is the covariance within one: that of
    the particles, which has the distance of the modes in it, would make all steps far too short.

    :param grads: gradients at the particles, shape `(n, d)`.
    :param dense: whether `F` is a matrix or its diagonal.
    """
    n, d = grads.shape
    finite = jnp.all(jnp.isfinite(grads), axis=1, keepdims=True)
    grads = jnp.where(finite, grads, 0) / jnp.sqrt(jnp.maximum(jnp.sum(finite), 1))
    scale = jnp.sqrt(jnp.sum(grads**2, axis=0))
    scale = jnp.where(scale > 0, scale, 1)
    if not dense:
        return 1 / scale
    scaled, identity = grads / scale, jnp.eye(d, dtype=grads.dtype)
    # A share of the diagonal keeps the matrix of few particles positive definite.
    correlation = (n * scaled.T @ scaled + d * identity) / (n + d)
    factor = jnp.linalg.cholesky(correlation)
    return solve_triangular(factor, identity, lower=True) / scale


def move_particles(
    key: Array,
    points: Point,
    target: Target,
    kernel: MALA,
    step_size: Array,
    num_steps: int,
    dense: bool,
    batch_size: int,
) -> Moved:
    """
    `num_steps` steps of MALA of every particle. The metric is that of the particles at the start;
    the step size, of all particles alike, is corrected after each step.
    """
    root = fisher_root(points.grad, dense)

    def step(carry, key):
        points, step_size = carry
        points, accept_prob, diverging, unresolved = mapped(
            lambda particle: kernel._move(*particle, target, step_size, root),
            (random.split(key, len(points.x)), points),
            batch_size,
        )
        accept_prob = jnp.mean(accept_prob)
        change = ADAPTATION_RATE * (accept_prob - kernel._target_accept_prob)
        return (points, step_size * jnp.exp(change)), (
            accept_prob,
            jnp.sum(diverging),
            jnp.mean(unresolved),
        )

    (points, step_size), (accept_prob, diverging, unresolved) = lax.scan(
        step, (points, step_size), random.split(key, num_steps)
    )
    return Moved(points, step_size, jnp.mean(accept_prob), jnp.sum(diverging), jnp.mean(unresolved))


def points_at(x: Array, target: Target, batch_size: int) -> Point:
    """The particles `x`, shape `(n, d)`, with energy, gradient and force."""
    integral = jnp.zeros((), x.dtype)
    return mapped(lambda x: target.at(x, integral), x, batch_size)


def first_step_size(x: Array) -> Array:
    """What is optimal on a Gaussian, in the metric of its covariance (see `MALA`)."""
    return jnp.asarray(1.36 * x.shape[-1] ** (-1 / 3), x.dtype)
