# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The mean length of the trajectories of MAMS, found in warmup: by U-turns, or by the autocorrelation
of draws.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from numpyro_scores._validation import check_positive
from numpyro_scores.infer.langevin.decoherence import Recorder, autocorrelation_time
from numpyro_scores.infer.langevin.isokinetic import isokinetic_step, set_out
from numpyro_scores.infer.langevin.targets import Point, Root, Target
from numpyro_scores.integrators.isokinetic import LEAPFROG, random_direction

# Lengths are uniform from this share below their mean to as much above it.
SPREAD = 0.5
# Of a Gaussian in the metric: the mean with the least number of gradients for an effective sample
# of a coordinate and of its square, whichever has fewer.
MEAN_LENGTH = 1.4
# Of the length that the autocorrelation is measured with: by how much one look may stretch it.
LARGEST_CHANGE = 2.0


def random_num_steps(uniform: Array, mean: Array) -> Array:
    """
    Steps of a trajectory: a whole number, one at least, uniform from half of the mean to one and a
    half of it.

    :param uniform: a number that is uniform from 0 to 1.
    :param mean: of these numbers, one at least.
    """
    more = mean - 1
    return 1 + jnp.floor((1 - SPREAD) * more + uniform * (2 * SPREAD * more + 1)).astype(int)


class Look(NamedTuple):
    """
    What a draw of warmup shows.

    - **number** - of the draws by which the length is measured.
    - **key** - for what is tried besides.
    - **point** - where the draw ended.
    - **target**, **step_size**, **root** - of the kernel, see :func:`mams.step`.
    - **max_num_steps** - largest mean number of steps of a trajectory.
    """

    number: Array
    key: Array
    point: Point
    target: Target
    step_size: Array
    root: Root
    max_num_steps: int


@dataclass(frozen=True)
class UTurnLength:
    r"""
    A share of the mean way that a trajectory makes before it turns back. It needs no
    autocorrelation and few draws (Wu, Stoehr & Robert 2018, arXiv 1810.04449, for HMC). Of a
    Gaussian in the metric, in many dimensions, the way is :math:`\pi`.

    :param share: of this way. With 0.45, the default, the length is that of a Gaussian, 1.4, if the
        target is one in the metric.
    :raises ValueError: unless it is positive.
    """

    share: float = MEAN_LENGTH / math.pi

    def __post_init__(self) -> None:
        check_positive("share", self.share)

    @property
    def first(self) -> float:
        """The mean length before it is known."""
        return self.share * math.pi

    def start(self, x: Array, num_draws: int) -> Any:
        """What is kept of the looks; None if there are too few."""
        return jnp.zeros((), x.dtype) if num_draws else None

    def after(self, kept: Any, look: Look) -> Any:
        """With one look more: the mean way so far."""
        way = way_to_u_turn(
            look.key, look.point, look.target, look.step_size, look.root, 2 * look.max_num_steps
        )
        return kept + (way - kept) / (look.number + 1)

    def length(self, kept: Any) -> Array:
        return self.share * kept


@dataclass(frozen=True)
class AutocorrelationLength:
    r"""
    A share of the autocorrelation length of a chain, as arXiv 2503.01707 tunes MAMS: draws of the
    mean length :math:`\ell` whose autocorrelation time is :math:`\tau` (the harmonic mean over the
    coordinates) give :math:`0.3\, \tau \ell`, at most :math:`2 \ell`. It takes some hundred draws.

    :param share: of the autocorrelation length.
    :param first: :math:`\ell`, over :math:`\sqrt d`.
    :raises ValueError: unless both are positive.
    """

    share: float = 0.3
    first: float = 1.3

    def __post_init__(self) -> None:
        check_positive("share", self.share)
        check_positive("first", self.first)

    def start(self, x: Array, num_draws: int) -> Any:
        return Recorder(0, num_draws).start(x)

    def after(self, kept: Any, look: Look) -> Any:
        return Recorder(0, len(kept)).after(kept, look.number, look.point.x)

    def length(self, kept: Any) -> Array:
        ratio = self.share * autocorrelation_time(kept)
        return self.first * jnp.minimum(ratio, LARGEST_CHANGE)


TrajectoryLength = float | UTurnLength | AutocorrelationLength


def way_to_u_turn(
    key: Array, start: Point, target: Target, step_size: Array, root: Root, max_num_steps: int
) -> Array:
    r"""
    How far a trajectory goes, from a fresh direction, before what it has moved, in the metric, and
    its direction are at right angles; over :math:`\sqrt d`. Where it leaves the finite numbers, as
    far as there.

    :param max_num_steps: after which it is not followed further.
    """
    direction = random_direction(key, start.x.shape, start.x.dtype)

    def is_ahead(carry):
        num_steps, *_, progress = carry
        return (progress > 0) & (num_steps < max_num_steps)

    def move(carry):
        num_steps, course, moved, _, progress = carry
        new, kinetic, _ = isokinetic_step(
            course, target, step_size, root, LEAPFROG, is_energy_asked=False
        )
        moved = moved + (course.direction + new.direction) / 2
        # In a gradient that is no number the direction stays, and the way would have no end.
        ahead = jnp.where(jnp.isfinite(kinetic), jnp.vdot(moved, new.direction), -jnp.inf)
        return num_steps + 1, new, moved, progress, ahead

    one = jnp.ones_like(start.energy)
    course = set_out(start, direction, root)
    carry = jnp.array(0), course, jnp.zeros_like(direction), one, one
    num_steps, *_, before, after = lax.while_loop(is_ahead, move, carry)
    # Between the last two steps, where the progress is 0.
    share = jnp.clip(before / jnp.maximum(before - after, jnp.finfo(one.dtype).tiny), 0, 1)
    over = jnp.where(jnp.isfinite(share) & (after <= 0), 1 - share, 0)
    return (num_steps - over) * step_size
