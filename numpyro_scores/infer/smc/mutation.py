# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How the particles of a model move: by MALA or, with noise scales, in blocks."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._validation import check_count
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.adaptation import check_target
from numpyro_scores.infer.langevin.targets import Point, Transition, check_rule
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.smc.block_moves import Block, block_step, spread_root
from numpyro_scores.infer.smc.moves import (
    Moved,
    fisher_information,
    fisher_root,
    move_particles,
)
from numpyro_scores.infer.smc.noise_scales import information, noise_scales
from numpyro_scores.infer.trees import map_rows

LARGEST_DENSE = 64
BLOCK_ACCEPT_PROB = 0.44  # optimal for a walk in one dimension
# Of noise scales with where they were: before particles are weighted, and in the end.
LARGEST_CORRELATION, LAST_CORRELATION = 0.25, 0.05


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
