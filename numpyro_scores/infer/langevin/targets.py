# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
What the functions `step` of the kernels move: a :class:`Point` of a :class:`Target`, a potential
energy of which a part, :math:`S`, may be known by its gradient alone,

.. math:: U(y) - U(x) = R(y) - R(x) + \int_0^1 \nabla S(x + t (y - x)) \cdot (y - x)\, dt.

`S` is minus the `log_prob` of the sites of a `ScoreDistribution`, `R` all the rest: other sites,
factors, Jacobians of transforms. The value that `ScoreDistribution.log_prob` has is an integral all
the way from its reference point; along the segment between two points of a chain a few nodes do.
Where they do not, as across the gap between two modes, the integral says so by its error, and the
chain does not go there. The error is that of the way back too: it remains reversible.

Steps are scaled by a metric :math:`M`, :math:`M^{-1} = R^\top R`: a kernel moves :math:`v` in
:math:`x + R^\top v`, where the metric is the identity and the gradient :math:`R\, \nabla U`. The
root `R` is a vector (a diagonal metric), a matrix, both by blocks of sites as in NumPyro's
`dense_mass=[("a", "b"), ("c",)]`, or None (no metric).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.util import identity

from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.low_rank import LowRankRoot


class Point(NamedTuple):
    """
    - **x** - position, shape `(d,)`.
    - **energy** - `Target.energy` there: the potential energy, without what is known by scores.
    - **grad** - gradient of the whole potential energy, shape `(d,)`.
    - **integral** - what the sites known by scores add to `energy`: integrated along the path.
    - **force** - what they add to `grad`, shape `(d,)`; None if there are none.
    """

    x: Array
    energy: Array
    grad: Array
    integral: Array
    force: Array | None = None


class Transition(NamedTuple):
    """
    One draw of a chain.

    - **point** - where the chain is then.
    - **accept_prob** - mean acceptance probability of the proposals.
    - **diverging** - whether a proposal was not finite.
    - **unresolved** - share of the proposals that were refused because of the error of an integral.
    - **num_steps** - number of steps, each of one gradient.
    """

    point: Point
    accept_prob: Array
    diverging: Array
    unresolved: Array
    num_steps: Array | int = 1


class Target(NamedTuple):
    """
    A potential energy of vectors.

    - **energy** - `U`, or `R` if there are sites known by their score.
    - **force** - the gradient of `S`, or None if there are none.
    - **rule** - of the integral of the force.
    """

    energy: Callable[[Array], Array]
    force: Callable[[Array], Array] | None = None
    rule: SegmentIntegral | LineIntegral = SegmentIntegral()

    def at(self, x: Array, integral: Array | float = 0.0) -> Point:
        """The point at `x`."""
        energy, grad = jax.value_and_grad(self.energy)(x)
        return self._with_force(Point(x, energy, grad, jnp.asarray(integral, x.dtype)))

    def resume(self, x: Array, potential_energy: Array, grad: Array) -> Point:
        """The point at which a draw has ended, from what is kept of it."""
        if self.force is None:
            return Point(x, potential_energy, grad, jnp.zeros_like(potential_energy))
        energy = self.energy(x)
        return Point(x, energy, grad, potential_energy - energy, self.force(x))

    def leap(self, point: Point, move: Array, is_energy_asked: bool = False) -> tuple[Point, Array]:
        """
        A point further on, and the error of what `S` rises by.

        :param is_energy_asked: whether the end knows its energy, which may cost far more than the
            gradient alone; else it has that of the start.
        """
        x = point.x + move
        if is_energy_asked:
            end = self.at(x, point.integral)
        else:
            end = self._with_force(point._replace(x=x, grad=jax.grad(self.energy)(x)))
        rise, error = self.rise(point, end)
        return end._replace(integral=end.integral + rise), error

    def _with_force(self, point: Point) -> Point:
        if self.force is None:
            return point
        force = self.force(point.x)
        return point._replace(grad=point.grad + force, force=force)

    def rise(self, start: Point, end: Point) -> tuple[Array, Array]:
        """By how much `S` rises from one point to another, and the error that is measured of it."""
        zero = jnp.zeros_like(start.energy)
        if self.force is None:
            return zero, zero
        assert start.force is not None and end.force is not None
        # As the integral of a score is a log density, so that of a force is a potential energy.
        if isinstance(self.rule, LineIntegral):
            return self.rule(self.force, start.x, end.x), zero
        return self.rule(self.force, start.x, end.x, start.force, end.force)

    def is_known(self, error: Array) -> Array:
        """Whether a rise with this error may be relied on."""
        if isinstance(self.rule, LineIntegral):  # nobody measures
            return jnp.ones_like(error, bool)
        return error <= self.rule.tolerance

    @property
    def num_score_evals(self) -> int:
        """Scores of one rise, besides those at its ends."""
        return 0 if self.force is None else self.rule.num_score_evals


def init(position: Array, target: Target) -> Point:
    """Where a chain starts, for the functions `step` of the kernels."""
    return target.at(position)


def check_rule(rule: Any) -> None:
    if not isinstance(rule, SegmentIntegral | LineIntegral):
        raise ValueError(
            "segment_integral must be a SegmentIntegral, such as SegmentIntegral(num_nodes=7), "
            "or a LineIntegral, of any number of nodes and without a measure of its error; got "
            f"{rule!r}."
        )


@partial(jax.tree_util.register_dataclass, data_fields=("roots",), meta_fields=("slices",))
@dataclass(frozen=True)
class BlockRoot:
    """
    The root of a metric of blocks.

    :param roots: of each block, a vector or a matrix.
    :param slices: of each block, begin and end of its sites in the vector of all.
    """

    roots: tuple[Array, ...]
    slices: tuple[tuple[tuple[int, int], ...], ...]

    def map(self, f: Callable[[Array, Array], Array], v: Array) -> Array:
        """`f(root, v)` in each block."""
        result = jnp.zeros_like(v)
        for root, slices in zip(self.roots, self.slices, strict=True):
            rows = np.concatenate([np.arange(*ends) for ends in slices])
            result = result.at[rows].set(f(root, v[rows]))
        return result


def flat_root(root: Any, z: Any) -> Any:
    """The root of an adapted metric, by block if it is NumPyro's dict, for `z` as one vector."""
    if not isinstance(root, dict):
        return root
    slices, end = {}, 0
    for name in sorted(z):
        begin, end = end, end + jnp.size(z[name])
        slices[name] = begin, end
    return BlockRoot(
        tuple(root.values()), tuple(tuple(slices[name] for name in names) for names in root)
    )


Root = Array | BlockRoot | LowRankRoot | None


def whiten(root: Root, grad: Array) -> Array:
    r""":math:`R\, \nabla U`: a gradient in the coordinates of the metric."""
    if root is None:
        return grad
    if isinstance(root, BlockRoot):
        return root.map(whiten, grad)
    if isinstance(root, LowRankRoot):
        return root.whiten(grad)
    return root @ grad if root.ndim == 2 else root * grad


def unwhiten(root: Root, v: Array) -> Array:
    r""":math:`R^\top v`: a move, out of the coordinates of the metric."""
    if root is None:
        return v
    if isinstance(root, BlockRoot):
        return root.map(unwhiten, v)
    if isinstance(root, LowRankRoot):
        return root.unwhiten(v)
    return root.T @ v if root.ndim == 2 else root * v


def coordinates(root: Root, x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """
    Where `x` is in the coordinates of the metric, and the way from there back to positions. With a
    metric they are relative to `x`, so that the root need not be inverted.
    """
    if root is None:
        return x, identity
    return jnp.zeros_like(x), lambda v: x + unwhiten(root, v)
