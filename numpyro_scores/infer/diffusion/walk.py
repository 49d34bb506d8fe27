# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Langevin steps of several groups of sites, whose lengths follow the curvature as it changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores.curvature import (
    NUM_ITERATIONS,
    block_directions,
    largest_curvature,
    next_directions,
)
from numpyro_scores.infer.diffusion.step_sizes import (
    MOST_BURSTS,
    SiteGroups,
    friction_at,
    num_bursts,
    wanted_bursts,
)
from numpyro_scores.infer.langevin.stiffness import FRICTION
from numpyro_scores.infer.low_rank import LowRankRoot
from numpyro_scores.infer.trees import all_finite, select
from numpyro_scores.integrators import (
    BAOAB,
    Integrator,
    OverdampedIntegrator,
    UnderdampedIntegrator,
)

# A curvature may fall by this factor from one noise level to the next: one estimate that is far too
# low, among thousands of chains, would let its chain explode.
CURVATURE_MEMORY = 0.8


class Walk(NamedTuple):
    """
    - **x** - all entries, shape `(d,)`.
    - **memory** - what the integrator carries besides.
    - **directions** - of the largest curvatures, shape `(num_groups, d)`.
    - **curvatures** - the largest of each group, shape `(num_groups,)`.
    - **diverging** - whether steps left the finite numbers, and so were not made.
    - **in_metric** - the curvature of the first group in the last metric, shape `()`.
    """

    x: Array
    memory: Any
    directions: Array
    curvatures: Array
    diverging: Array
    in_metric: Array


@dataclass(frozen=True)
class GroupedLangevin:
    r"""
    Bursts of `num_steps` Langevin steps. In each, Hessian-vector products measure the largest
    curvature of each group, and the group steps by half its inverse, :math:`1 / \Lambda`, or half
    of :math:`\sigma / \sqrt\Lambda` if that is less, divided by the number of groups.

    :param groups: which entries belong together.
    :param num_steps: number of steps of a burst.
    :param integrator: the one-step map.
    :param friction: of an underdamped integrator, friction times time step; by default 0.2, or
        :math:`2 / (\sigma \sqrt\Lambda)` if that is less.
    :param is_bounded: whether no direction of the first group is softer than :math:`\sigma`. Its
        friction is then critical for those that are as soft.
    :param max_bursts: with a momentum there are as many bursts as the condition number of the first
        group asks for, but at most these.
    """

    groups: SiteGroups
    num_steps: int
    integrator: Integrator = BAOAB()
    friction: float | None = None
    is_bounded: bool = False
    max_bursts: int = MOST_BURSTS

    @property
    def _is_first(self) -> np.ndarray:
        return np.arange(len(self.groups.transformed)) == 0

    def _cost(self, num_iterations: int | Array) -> int | Array:
        """Gradients of one burst with as many Hessian-vector products, each counted as 2."""
        num_products = len(self.groups.transformed) * num_iterations
        return self.num_steps * self.integrator.num_grad_evals + 1 + 2 * num_products

    def is_spared(self, walk: Walk, sigma: Any, num_grad_evals: int) -> Array:
        """
        Whether a metric in which one burst is enough spares more gradients than these. Of a walk
        that has not yet made a step it may.
        """
        curvature = walk.curvatures[0]
        spared = self._cost(NUM_ITERATIONS) * (wanted_bursts(curvature, sigma) - 1)
        return (curvature == 0) | (spared > num_grad_evals)

    def start(self, x: Array, key_noise: Array, key_directions: Array) -> Walk:
        """A walk that has not yet made a step."""
        noise = random.normal(key_noise, x.shape, x.dtype)
        directions = random.normal(key_directions, x.shape, x.dtype)
        return Walk(
            x=x,
            memory=self.integrator.init(x, noise, jnp.zeros_like).memory,
            directions=block_directions(directions, self.groups.index),
            curvatures=jnp.zeros(len(self.groups.transformed), x.dtype),
            diverging=jnp.array(False),
            in_metric=jnp.ones((), x.dtype),
        )

    def run(
        self,
        key: Array,
        walk: Walk,
        gradient: Callable[[Array], Array],
        sigma: Any,
        num_iterations: int | Array = NUM_ITERATIONS,
        step_size: Any = None,
        root: LowRankRoot | None = None,
    ) -> tuple[Walk, Array]:
        r"""
        :param gradient: of the potential energy, of a vector.
        :param sigma: the scale of the first group, for example the noise level.
        :param num_iterations: Hessian-vector products of the first burst.
        :param step_size: of all entries, in place of one from the curvatures; for one burst.
        :param root: `R` of an inverse metric :math:`R^\top R`, whose scale is `sigma` in the first
            group and 1 in the others. The walk is then one of `v` in :math:`x + R^\top v`.
        :return: the walk, and the number of gradients, a Hessian-vector product counted as 2.
        """
        if root is not None:
            return self._run_in_metric(key, walk, gradient, sigma, num_iterations, root)
        return self._run(key, walk, gradient, sigma, num_iterations, step_size, lambda v: v)

    def _run_in_metric(self, key, walk, gradient, sigma, num_iterations, root):
        start = walk.x

        def position(v):
            return start + root.unwhiten(v)

        # A walk keeps its curvatures without a metric. That of the first group is as much larger as
        # the metric is narrower; but the same, if the stiffest direction is one that it leaves out.
        ratio = jnp.min(root.stretch) ** 2
        to_metric = jnp.where(self._is_first, sigma**2 * ratio, 1)
        walk, num_grad_evals = self._run(
            key,
            walk._replace(x=jnp.zeros_like(start), curvatures=walk.curvatures * to_metric),
            lambda v: root.whiten(gradient(position(v))),
            1.0,
            num_iterations,
            None,
            lambda v: root.unwhiten(v) / root.scale,
        )
        found = walk.curvatures
        whole = jnp.maximum(found, jnp.minimum(found, 1) / ratio) / sigma**2
        walk = walk._replace(
            x=position(walk.x),
            curvatures=jnp.where(self._is_first, whole, found),
            in_metric=found[0],
        )
        return walk, num_grad_evals

    def _run(self, key, walk, gradient, sigma, num_iterations, step_size, lengths):
        """
        :param lengths: of a move, in units of what each group may move.
        """
        underdamped = isinstance(self.integrator, UnderdampedIntegrator)

        def one_burst(carry):
            i, walk = carry
            x, memory, directions, curvatures, diverging = walk[:5]
            key_probe, key_steps = random.split(random.fold_in(key, i))
            current = self.integrator.init(x, jnp.zeros_like(x), gradient)
            if step_size is not None:
                steps = step_size
                friction = self.friction or FRICTION
            else:
                if underdamped:
                    memory = self.groups.limited_momentum(memory)
                fresh = random.normal(key_probe, x.shape, x.dtype)
                measured, directions = largest_curvature(
                    gradient,
                    x,
                    next_directions(directions, block_directions(fresh, self.groups.index)),
                    jnp.where(i == 0, num_iterations, NUM_ITERATIONS),
                )
                curvatures = jnp.maximum(measured, CURVATURE_MEMORY * curvatures)
                steps = self.groups.step_size(
                    curvatures, lengths(current.grad), sigma, self.num_steps
                )
                friction = self.friction or friction_at(curvatures[0], sigma)
                if self.is_bounded:
                    critical = 2 * time_steps(steps) / sigma
                    friction = jnp.where(self.groups.index == 0, critical, friction)

            def limited_gradient(x):
                grad = gradient(x)
                if step_size is not None:
                    return grad
                return self.groups.tamed_gradient(grad, lengths(steps * grad), sigma)

            def step(current, key):
                return self._step(current, key, limited_gradient, steps, friction), None

            keys = random.split(key_steps, self.num_steps)
            current, _ = lax.scan(step, current._replace(memory=memory), keys)
            finite = all_finite(current)
            x, memory = select(finite, (current.x, current.memory), (x, memory))
            return i + 1, walk._replace(
                x=x,
                memory=memory,
                directions=directions,
                curvatures=curvatures,
                diverging=diverging | ~finite,
            )

        def unfinished(carry):
            i, walk = carry
            return i < jnp.minimum(num_bursts(walk.curvatures[0], sigma), self.max_bursts)

        carry = (0, walk)
        if step_size is None and underdamped and self.max_bursts > 1:
            bursts, walk = lax.while_loop(unfinished, one_burst, carry)
        else:
            bursts, walk = one_burst(carry)
        if step_size is not None:
            return walk, jnp.asarray(bursts * self._cost(0))
        num_grad_evals = self._cost(num_iterations) + (bursts - 1) * self._cost(NUM_ITERATIONS)
        return walk, jnp.asarray(num_grad_evals)

    def _step(self, current, key, gradient, step_size, friction):
        integrator, x = self.integrator, current.x
        noise = random.normal(key, (integrator.num_noises, *x.shape), x.dtype)
        if isinstance(integrator, OverdampedIntegrator):
            return integrator.step(current, noise, gradient, step_size)
        time_step = time_steps(step_size)
        return integrator.step(current, noise, gradient, time_step, friction / time_step)


def time_steps(step_size: Array) -> Array:
    """The time of an underdamped step that is as long as an overdamped one."""
    # A group whose step is zero does not move, and its momentum is forgotten all the same.
    return jnp.sqrt(2 * jnp.maximum(step_size, jnp.finfo(jnp.result_type(step_size)).tiny))
