# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Moves of a population of particles, with a metric and a step size that all share: by MALA or, with
noise scales, in blocks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.scipy.linalg import solve_triangular

from numpyro_scores._validation import check_count
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.adaptation import check_target, corrected_step_size
from numpyro_scores.infer.langevin.targets import Point, Target, Transition, check_rule, init
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.block_moves import Block, block_step, spread_root
from numpyro_scores.infer.smc.noise_scales import information, noise_scales
from numpyro_scores.infer.trees import map_rows

MOST_REPEATS = 10
SMALLEST_ACCEPT_PROB = 0.01  # at a mean of 0.574 one proposal of MALA in 5,000 has less
LARGEST_DENSE = 64
BLOCK_ACCEPT_PROB = 0.44  # optimal for a walk in one dimension
# Of noise scales with where they were: before particles are weighted, and in the end.
LARGEST_CORRELATION, LAST_CORRELATION = 0.25, 0.05


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


class Mutation(NamedTuple):
    """
    - **step** - of one particle, without noise scales: `step` of the module of a kernel.
    - **rule** - of the integral of a score (`segment_integral`).
    - **target_accept_prob** - what the step size aims at.
    - **num_steps** - number of steps a round.
    - **dense_mass** - whether a metric is a matrix, None for the default.
    - **batch_size** - how many particles the model sees at once.
    """

    step: Callable[..., Transition]
    rule: SegmentIntegral | LineIntegral
    target_accept_prob: float
    num_steps: int
    dense_mass: bool | None
    batch_size: int

    def check(self) -> None:
        """Raise if a setting is out of its range."""
        check_target(self.target_accept_prob)
        check_rule(self.rule)
        check_count("num_steps", self.num_steps)
        check_count("batch_size", self.batch_size)

    def is_dense(self, num_particles: int, d: int) -> bool:
        if self.dense_mass is not None:
            return self.dense_mass
        return d <= min(LARGEST_DENSE, num_particles // 10)

    def prior_precision(self, points: Point, power: Any, model: FlatModel) -> Array:
        """
        That of all entries but noise scales, by the gradients of the prior at particles; of size 0
        without such scales.

        :param power: that of the likelihood in the gradients of the points.
        """
        x = points.x
        if not (scales := noise_scales(model, x[0])).size:
            return jnp.zeros(0, x.dtype)
        grads = points.grad + power * map_rows(jax.grad(model.log_likelihood), x, self.batch_size)
        others = np.delete(np.arange(x.shape[1]), scales)
        return fisher_information(grads[:, others], self.is_dense(len(x), len(others)))

    def __call__(
        self,
        key: Array,
        points: Point,
        model: FlatModel,
        power: Any,
        step_size: Array,
        prior_precision: Array,
    ) -> tuple[Moved, Array]:
        """
        Steps of all particles that leave the posterior of a power of the likelihood as it is, and
        how many gradients and scores each has cost.
        """
        x = points.x
        target = model.tempered(power, x[0], self.rule)
        move = partial(
            move_particles,
            key,
            points,
            step_size=step_size,
            num_steps=self.num_steps,
            batch_size=self.batch_size,
        )
        if (scales := noise_scales(model, x[0])).size:
            others = np.delete(np.arange(x.shape[1]), scales)
            step = partial(
                block_step,
                target=target,
                likelihood_grad=jax.grad(model.log_likelihood),
                informed=information(model, others, dense=prior_precision.ndim == 2),
                power=power,
                block=Block(scales, others, prior_precision),
                walk=spread_root(x[:, scales]),
            )
            moved = move(
                lambda key, point, h: step(key, point, step_size=h),
                target_accept_prob=min(self.target_accept_prob, BLOCK_ACCEPT_PROB),
                largest_step_size=1,
                slow=scales,
                largest_correlation=jnp.where(power == 1, LAST_CORRELATION, LARGEST_CORRELATION),
            )
        else:
            root = fisher_root(points.grad, self.is_dense(*x.shape))
            moved = move(
                lambda key, point, h: self.step(key, point, target, h, root),
                target_accept_prob=self.target_accept_prob,
            )
        return moved, moved.num_steps * (1 + target.num_score_evals)
