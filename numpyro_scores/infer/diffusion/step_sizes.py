# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How far each group of sites may step during an anneal, and how often: all from curvatures."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores.infer.langevin.stiffness import FRICTION

# The step in units of the inverse curvature, shared among the groups of sites: the largest
# eigenvalue of a positive matrix whose diagonal blocks have norm one is at most their number.
STEP_FRACTION = 0.5

# A transformed site, such as a noise scale, changes the curvature of all others by the exponential
# of its own move: between two measurements its free path is at most this, unconstrained.
LARGEST_MOVE = 0.5

# No momentum is this large by chance (6e-7 in one dimension). One that was gained on a
# steep wall, where steps are small, would throw its group out of sight as soon as they grow.
LARGEST_MOMENTUM = 5.0

# The root mean square of d standard normals is beyond 1 + 4 / sqrt(d) by no chance (6e-7 in one
# dimension).
MARGIN = 4.0

# Bursts of steps at a noise level sigma for each sigma * sqrt(curvature), the root of the condition
# number: what a momentum needs to forget; and as many as are made at most.
BURSTS_PER_ROOT = 0.3
MOST_BURSTS = 20


class SiteGroups(NamedTuple):
    """
    - **index** - to which group each entry belongs, shape `(d,)`; 0 are the diffusion priors.
    - **transformed** - whether a group's support is not that of all real numbers, `(num_groups,)`.
    """

    index: np.ndarray
    transformed: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Number of entries of each group, shape `(num_groups,)`."""
        return np.bincount(self.index, minlength=len(self.transformed))

    @property
    def margin(self) -> np.ndarray:
        """How many times their expectation root mean squares may be by chance, `(num_groups,)`."""
        return 1 + MARGIN / np.sqrt(self.sizes)

    def rms(self, x: Array) -> Array:
        """Root mean square of each group, shape `(num_groups,)`."""
        return jnp.sqrt(jnp.bincount(self.index, x**2, length=len(self.sizes)) / self.sizes)

    def radius(self, sigma: Array) -> Array:
        """How far a step may carry each group: the noise level, or one unconstrained unit."""
        return jnp.where(np.arange(len(self.transformed)) == 0, sigma, 1.0)

    def step_size(self, curvatures: Array, grad: Array, sigma: Array, num_steps: int) -> Array:
        """
        A step size for each entry, shape `(d,)`.

        :param curvatures: the largest of each group, shape `(num_groups,)`.
        :param grad: the gradient; in a metric, as far as a step of one would go.
        :param num_steps: number of steps that will be made with it.
        """
        # At a kink, or where it is nearly straight, the slope of the potential bounds the step.
        # Slopes that chance explains count alike: steps that followed them would be short in the
        # tails, and so make these too heavy.
        slope, by_chance = self.rms(grad), jnp.sqrt(curvatures)
        slope = jnp.where(slope > self.margin * by_chance, slope, by_chance)
        bound = jnp.maximum(curvatures, slope / self.radius(sigma))
        step_size = STEP_FRACTION / (len(curvatures) * bound)
        longest = np.where(self.transformed, (LARGEST_MOVE / num_steps) ** 2 / 2, np.inf)
        step_size = jnp.minimum(step_size, longest)
        return jnp.where(jnp.isfinite(step_size), step_size, 0.0)[self.index]

    def tamed_gradient(self, grad: Array, move: Array, sigma: Array) -> Array:
        """
        The gradient, no longer in any group than lets a step go as far as its scale and chance
        allow: steps that were chosen where they start may meet a wall (Brosse, Durmus, Moulines &
        Sabanis 2019, "The tamed unadjusted Langevin algorithm").

        :param move: of a step along the gradient, shape `(d,)`.
        """
        longest = STEP_FRACTION * self.margin * self.radius(sigma)
        return self._scaled(grad, longest / self.rms(move))

    def limited_momentum(self, momentum: Array) -> Array:
        """The momentum of each group within what chance can make of it."""
        return self._scaled(momentum, LARGEST_MOMENTUM / self.rms(momentum))

    def _scaled(self, x: Array, ratio: Array) -> Array:
        """Each group times its ratio of allowed to actual size, if that is below one."""
        scale = jnp.minimum(1.0, ratio)
        return jnp.where(jnp.isnan(scale), 1.0, scale)[self.index] * x


def wanted_bursts(curvature: Array, sigma: Array) -> Array:
    """Bursts of steps with a momentum at a noise level, were there no bound on them."""
    return jnp.ceil(BURSTS_PER_ROOT * sigma * jnp.sqrt(curvature))


def num_bursts(curvature: Array, sigma: Array) -> Array:
    """Bursts of steps with a momentum at a noise level."""
    return jnp.clip(wanted_bursts(curvature, sigma), 1, MOST_BURSTS)


def friction_at(curvature: Array, sigma: Array) -> Array:
    r"""Friction times time step: critical for a direction of scale `sigma`, or 0.2 if less."""
    return jnp.minimum(FRICTION, 2 / (sigma * jnp.sqrt(curvature)))
