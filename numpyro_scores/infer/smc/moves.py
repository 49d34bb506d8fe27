# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Moves of a population of particles, with a metric and a step size that all share."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.scipy.linalg import solve_triangular

from numpyro_scores.infer.adaptation import corrected_step_size
from numpyro_scores.infer.langevin.targets import Point, Target, Transition, init
from numpyro_scores.infer.trees import map_rows

MOST_REPEATS = 10
SMALLEST_ACCEPT_PROB = 0.01  # at a mean of 0.574 one proposal of MALA in 5,000 has less


class Moved(NamedTuple):
    """
    - **points** - the particles.
    - **step_size** - of the next step.
    - **accept_prob** - mean acceptance probability of the steps.
    - **num_diverging** - number of proposals that were not finite.
    - **unresolved** - share of the proposals that were refused because of the error of an integral.
    - **best_accept_prob** - largest acceptance probability of the steps of each, shape `(n,)`.
    - **num_steps** - number of steps of each particle.
    """

    points: Point
    step_size: Array
    accept_prob: Array
    num_diverging: Array
    unresolved: Array
    best_accept_prob: Array
    num_steps: Array

    def figures(self) -> dict[str, Array]:
        """What is kept of them in `Rounds`."""
        return {
            "accept_prob": self.accept_prob,
            "step_size": self.step_size,
            "num_diverging": self.num_diverging,
            "unresolved": self.unresolved,
            "num_stuck": jnp.sum(self.best_accept_prob < SMALLEST_ACCEPT_PROB),
        }


def fisher_root(grads: Array, dense: bool) -> Array:
    r"""
    The root `R`, :math:`R^\top R = F^{-1}`, of the metric :math:`F = E[\nabla U\, \nabla U^\top]`
    (Titsias 2023, "Optimal preconditioning and Fisher adaptive Langevin sampling"). On a Gaussian
    :math:`F^{-1}` is the covariance. With several modes it is the covariance within one: that of
    the particles, which has the distance of the modes in it, would make all steps far too short.

    :param grads: gradients at the particles, shape `(n, d)`.
    :param dense: whether `F` is a matrix or its diagonal.
    """
    scale, correlation = _scale_and_correlation(grads, dense)
    if not dense:
        return 1 / scale
    identity = jnp.eye(len(scale), dtype=grads.dtype)
    return solve_triangular(jnp.linalg.cholesky(correlation), identity, lower=True) / scale


def fisher_information(grads: Array, dense: bool) -> Array:
    """`F` itself, shape `(d, d)`, or its diagonal."""
    scale, correlation = _scale_and_correlation(grads, dense)
    return scale[:, None] * correlation * scale if dense else scale**2


def _scale_and_correlation(grads, dense):
    n, d = grads.shape
    finite = jnp.all(jnp.isfinite(grads), axis=1, keepdims=True)
    grads = jnp.where(finite, grads, 0) / jnp.sqrt(jnp.maximum(jnp.sum(finite), 1))
    scale = jnp.sqrt(jnp.sum(grads**2, axis=0))
    scale = jnp.where(scale > 0, scale, 1)
    if not dense:
        return scale, None
    scaled = grads / scale
    # A share of the diagonal keeps the matrix of few particles positive definite.
    identity = jnp.eye(d, dtype=grads.dtype)
    return scale, (n * scaled.T @ scaled + d * identity) / (n + d)


def move_particles(
    key: Array,
    points: Point,
    step: Callable[[Array, Point, Array], Transition],
    step_size: Array,
    num_steps: int,
    target_accept_prob: float,
    batch_size: int,
    largest_step_size: float = jnp.inf,
    slow: np.ndarray | None = None,
    largest_correlation: Array | float = 0.25,
) -> Moved:
    """
    `num_steps` Metropolis steps of every particle. The step size, of all particles alike, is
    corrected after each.

    :param step: of one particle, by a key, its point and the step size.
    :param slow: entries of which little is to be left of where they started: `num_steps` are
        repeated, ten times at most, until the correlation of each with its start is no larger than
        `largest_correlation` (Buchholz, Chopin & Jacob 2021, "Adaptive tuning of Hamiltonian Monte
        Carlo within sequential Monte Carlo").
    """

    def all_step(carry, key):
        points, step_size = carry
        points, accept_prob, diverging, unresolved, _ = map_rows(
            lambda particle: step(*particle, step_size),
            (random.split(key, len(points.x)), points),
            batch_size,
        )
        step_size = corrected_step_size(step_size, jnp.mean(accept_prob), target_accept_prob)
        step_size = jnp.minimum(step_size, largest_step_size)
        return (points, step_size), (accept_prob, jnp.sum(diverging), jnp.mean(unresolved))

    def again(i, points, step_size):
        keys = random.split(random.fold_in(key, i), num_steps)
        (points, step_size), (accept_prob, diverging, unresolved) = lax.scan(
            all_step, (points, step_size), keys
        )
        return Moved(
            points=points,
            step_size=step_size,
            accept_prob=jnp.mean(accept_prob),
            num_diverging=jnp.sum(diverging),
            unresolved=jnp.mean(unresolved),
            best_accept_prob=jnp.max(accept_prob, axis=0),
            num_steps=(i + 1) * num_steps,
        )

    first = again(jnp.array(0), points, jnp.minimum(step_size, largest_step_size))
    if slow is None:
        return first

    def is_near(moved):
        near = correlation(points.x[:, slow], moved.points.x[:, slow]) > largest_correlation
        return jnp.any(near) & (moved.num_steps < MOST_REPEATS * num_steps)

    def repeated(moved):
        i = moved.num_steps // num_steps
        more = again(i, moved.points, moved.step_size)
        return more._replace(
            accept_prob=(i * moved.accept_prob + more.accept_prob) / (i + 1),
            num_diverging=moved.num_diverging + more.num_diverging,
            unresolved=(i * moved.unresolved + more.unresolved) / (i + 1),
            best_accept_prob=jnp.maximum(moved.best_accept_prob, more.best_accept_prob),
        )

    return lax.while_loop(is_near, repeated, first)


def correlation(x: Array, y: Array) -> Array:
    """Of each column with that of `y`, both of shape `(n, k)`, 0 where one does not vary."""
    x, y = x - jnp.mean(x, axis=0), y - jnp.mean(y, axis=0)
    product = jnp.sqrt(jnp.sum(x**2, axis=0) * jnp.sum(y**2, axis=0))
    return jnp.sum(x * y, axis=0) / jnp.where(product > 0, product, 1)


def points_at(x: Array, target: Target, batch_size: int) -> Point:
    """The particles `x`, shape `(n, d)`, with energy, gradient and force."""
    return map_rows(lambda x: init(x, target), x, batch_size)


def first_step_size(x: Array) -> Array:
    """What is optimal on a Gaussian, in the metric of its covariance (see `MALA`)."""
    return jnp.asarray(1.36 * x.shape[-1] ** (-1 / 3), x.dtype)
