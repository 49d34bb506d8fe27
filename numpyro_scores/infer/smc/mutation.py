# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How the particles of a model move: by MALA or, with noise scales, in blocks."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores.infer.langevin.mala import MALA
from numpyro_scores.infer.langevin.segments import Point
from numpyro_scores.infer.smc.block_moves import Block, block_step, spread_root
from numpyro_scores.infer.smc.moves import (
    Moved,
    fisher_information,
    fisher_root,
    move_particles,
)
from numpyro_scores.infer.smc.noise_scales import noise_scales
from numpyro_scores.infer.smc.particle_model import ParticleModel
from numpyro_scores.infer.trees import mapped

LARGEST_DENSE = 64
BLOCK_ACCEPT_PROB = 0.44  # optimal for a walk in one dimension
# Of noise scales with where they were: before particles are weighted, and in the end.
LARGEST_CORRELATION, LAST_CORRELATION = 0.25, 0.05


class Mutation(NamedTuple):
    """
    - **kernel** - with the settings of a step.
    - **num_steps** - number of steps a round.
    - **dense_mass** - whether a metric is a matrix, None for the default.
    - **batch_size** - how many particles the model sees at once.
    """

    kernel: MALA
    num_steps: int
    dense_mass: bool | None
    batch_size: int

    def is_dense(self, num_particles: int, d: int) -> bool:
        if self.dense_mass is not None:
            return self.dense_mass
        return d <= min(LARGEST_DENSE, num_particles // 10)

    def prior_precision(self, points: Point, power: Any, model: ParticleModel) -> Array:
        """
        That of all entries but noise scales, by the gradients of the prior at particles; of size 0
        without such scales.

        :param power: that of the likelihood in the gradients of the points.
        """
        x = points.x
        if not (scales := noise_scales(model, x[0])).size:
            return jnp.zeros(0, x.dtype)
        grads = points.grad + power * mapped(jax.grad(model.log_likelihood), x, self.batch_size)
        others = np.delete(np.arange(x.shape[1]), scales)
        return fisher_information(grads[:, others], self.is_dense(len(x), len(others)))

    def __call__(
        self,
        key: Array,
        points: Point,
        model: ParticleModel,
        power: Any,
        step_size: Array,
        prior_precision: Array,
    ) -> tuple[Moved, Array]:
        """
        Steps of all particles that leave the posterior of a power of the likelihood as it is, and
        how many gradients and scores each has cost.
        """
        x = points.x
        target = model.tempered(power, x[0], self.kernel._segment_integral)
        move = partial(
            move_particles,
            key,
            points,
            step_size=step_size,
            num_steps=self.num_steps,
            batch_size=self.batch_size,
        )
        aim = self.kernel._target_accept_prob
        if (scales := noise_scales(model, x[0])).size:
            others = np.delete(np.arange(x.shape[1]), scales)
            step = partial(
                block_step,
                target=target,
                model=model,
                power=power,
                block=Block(scales, others, prior_precision),
                walk=spread_root(x[:, scales]),
            )
            moved = move(
                lambda key, point, h: step(key, point, step_size=h),
                target_accept_prob=min(aim, BLOCK_ACCEPT_PROB),
                largest_step_size=1,
                slow=scales,
                largest_correlation=jnp.where(power == 1, LAST_CORRELATION, LARGEST_CORRELATION),
            )
        else:
            root = fisher_root(points.grad, self.is_dense(*x.shape))
            moved = move(
                lambda key, point, h: self.kernel._move(key, point, target, h, root),
                target_accept_prob=aim,
            )
        return moved, moved.num_steps * (1 + target.num_score_evals)
