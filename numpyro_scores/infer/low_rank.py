# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
A metric of a diagonal and a few directions, learned from draws and gradients.

.. math:: M^{-1} = D\, (I + Q (\Lambda - I) Q^\top)\, D

with a diagonal `D` and orthonormal `Q` of shape `(d, rank)`: a step costs of order `d` times the
rank. On a Gaussian of covariance :math:`\Sigma` the gradients have the covariance
:math:`\Sigma^{-1}`. In the metric with :math:`M^{-1} C_g M^{-1} = C_x`, the geometric mean of the
covariance of the draws and the inverse of that of the gradients, the Fisher divergence from a
standard normal law is least (Seyboldt, Carlson & Carpenter 2026, arXiv 2603.18845). It is found for
the diagonal first, :math:`D^2 = \sqrt{\operatorname{var} x / \operatorname{var} g}`, then in
the span of the directions in which the scaled draws are widest and those in which the scaled
gradients are, and again for the diagonal of what is left without these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc_util import build_adaptation_schedule, warmup_adapter

from numpyro_scores._validation import check_count

# A direction is kept if its variance is off by more than this factor: what the diagonal leaves to
# chance is not taken for a correlation.
SMALLEST_FACTOR = 2.0
PSEUDO_DRAWS = 0.1
# Of the diagonal, after the directions are known.
NUM_ROUNDS, SHARE_OF_ALL = 2, 1e-3
# Draws that are kept of a window.
MAX_DRAWS = 256


@dataclass(frozen=True)
class LowRank:
    """
    A diagonal metric and a few directions besides, for many dimensions of which few are stiff or
    wide: see :mod:`numpyro_scores.infer.low_rank`.

    :param rank: number of directions; of a model with fewer dimensions, as many as these.
    """

    rank: int = 10

    def __post_init__(self) -> None:
        check_count("rank", self.rank)


class LowRankRoot(NamedTuple):
    r"""
    - **scale** - the diagonal of `D`, shape `(d,)`.
    - **directions** - `Q`, shape `(d, rank)`.
    - **stretch** - the roots of the diagonal of :math:`\Lambda`, shape `(rank,)`.
    """

    scale: Array
    directions: Array
    stretch: Array

    def stretched(self, v: Array) -> Array:
        r""":math:`(I + Q (\Lambda^{1/2} - I) Q^\top) v`."""
        return v + self.directions @ ((self.stretch - 1) * (self.directions.T @ v))

    def whiten(self, grad: Array) -> Array:
        """A gradient in the coordinates of the metric."""
        return self.stretched(self.scale * grad)

    def unwhiten(self, v: Array) -> Array:
        """A move, out of the coordinates of the metric."""
        return self.scale * self.stretched(v)

    @property
    def inverse_metric(self) -> Array:
        """As a matrix, for small `d`."""
        root = jax.vmap(self.unwhiten)(jnp.eye(len(self.scale), dtype=self.scale.dtype))
        return root.T @ root

    @classmethod
    def diagonal(cls, inverse_metric: Array, rank: int) -> "LowRankRoot":
        """Without any direction yet."""
        d = len(inverse_metric)
        directions = jnp.zeros((d, rank), inverse_metric.dtype)
        return cls(jnp.sqrt(inverse_metric), directions, jnp.ones(rank, inverse_metric.dtype))


def low_rank_root(x: Array, grad: Array, num_draws: Array | int, rank: int) -> LowRankRoot:
    """
    The metric by draws and the gradients of the potential energy there.

    :param x: shape `(n, d)`, of which the first rows are draws.
    :param grad: likewise.
    :param num_draws: how many they are.
    :param rank: number of directions, `d` at most.
    """
    is_draw = (jnp.arange(len(x)) < num_draws)[:, None]
    x, grad = (jnp.where(is_draw, v - jnp.mean(v, axis=0, where=is_draw), 0.0) for v in (x, grad))
    scale = _fisher_scale(*(jnp.sum(v**2, axis=0) for v in (x, grad)))
    for _ in range(NUM_ROUNDS):
        scaled = x / scale, grad * scale
        basis, _ = _directions(*scaled, num_draws, rank)
        # The gradient of a few stiff directions is large in all entries: the diagonal is for what
        # is left without them, and for a little of them, or rounding would decide where all is.
        squares = (
            jnp.sum((v - v @ basis @ basis.T) ** 2 + SHARE_OF_ALL * v**2, axis=0) for v in scaled
        )
        scale = scale * _fisher_scale(*squares)
    basis, values = _directions(x / scale, grad * scale, num_draws, rank)
    return LowRankRoot(scale, basis, jnp.sqrt(values))


def _fisher_scale(of_draws: Array, of_gradients: Array) -> Array:
    """The fourth root of the ratio of the variances; 1 for a chain that has not moved."""
    tiny = jnp.finfo(of_draws.dtype).tiny
    roots = (jnp.sqrt(jnp.maximum(squares, tiny)) for squares in (of_draws, of_gradients))
    return jnp.sqrt(next(roots) / next(roots))


def _directions(x: Array, grad: Array, num_draws: Array | int, rank: int) -> tuple[Array, Array]:
    """Those whose variance is farthest from 1, and this variance; 1 if that is not far."""
    basis = jnp.linalg.qr(jnp.concatenate([_widest(x, rank), _widest(grad, rank)], axis=1))[0]
    # A little of a standard normal law, since few draws do not span all directions.
    prior = PSEUDO_DRAWS * jnp.eye(basis.shape[1], dtype=x.dtype)
    covariances = [
        (v.T @ v + prior) / (num_draws + PSEUDO_DRAWS) for v in (x @ basis, grad @ basis)
    ]
    values, vectors = jnp.linalg.eigh(geometric_mean(*covariances))
    factor = jnp.maximum(values, 1 / jnp.maximum(values, jnp.finfo(x.dtype).tiny))
    order = jnp.argsort(-factor)[:rank]
    return basis @ vectors[:, order], jnp.where(factor > SMALLEST_FACTOR, values, 1.0)[order]


def _widest(x: Array, rank: int) -> Array:
    """The directions of largest variance, orthonormal, shape `(d, min(rank, num_draws, d))`."""
    if x.shape[1] <= x.shape[0]:
        return jnp.linalg.eigh(x.T @ x)[1][:, -rank:]
    # In the span of the draws, which is the smaller space.
    values, vectors = jnp.linalg.eigh(x @ x.T)
    values, vectors = values[-rank:], vectors[:, -rank:]
    return x.T @ vectors / jnp.sqrt(jnp.maximum(values, jnp.finfo(x.dtype).tiny))


def geometric_mean(covariance: Array, of_gradients: Array) -> Array:
    r"""
    The positive definite solution of :math:`S C_g S = C_x`:
    :math:`C_g^{-1/2} (C_g^{1/2} C_x C_g^{1/2})^{1/2} C_g^{-1/2}`.
    """
    root, inverse_root = _powers(of_gradients, 0.5), _powers(of_gradients, -0.5)
    return inverse_root @ _powers(root @ covariance @ root, 0.5) @ inverse_root


def _powers(matrix: Array, power: float) -> Array:
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    values = jnp.maximum(values, jnp.finfo(matrix.dtype).eps * values[-1])
    return (vectors * values**power) @ vectors.T


class Window(NamedTuple):
    """
    What is kept of the draws of a window, and the gradients there.

    - **x**, **grad** - shape `(capacity, d)`.
    - **count** - number of draws so far; when they are more than there is room for, the oldest go.
    """

    x: Array
    grad: Array
    count: Array

    @classmethod
    def start(cls, capacity: int, like: Array) -> "Window":
        empty = jnp.zeros((capacity, *like.shape), like.dtype)
        return cls(empty, empty, jnp.array(0))

    def after(self, x: Array, grad: Array) -> "Window":
        """With one more draw."""
        row = self.count % len(self.x)
        return Window(self.x.at[row].set(x), self.grad.at[row].set(grad), self.count + 1)


def low_rank_adapter(
    num_warmup: int, rank: int, *, adapt_mass_matrix: bool, **settings: Any
) -> tuple[Callable, Callable]:
    """
    The `init` and `update` of NumPyro's `warmup_adapter`, with this metric in the place of its own.
    The state's `inverse_mass_matrix` and `mass_matrix_sqrt_inv` are both the
    :class:`LowRankRoot`; `update` takes `(z, gradient)`, the gradient as one vector.

    :param settings: of `warmup_adapter`.
    """
    # NumPyro's part is the step size, which begins anew with each window.
    init_base, update_base = warmup_adapter(num_warmup, adapt_mass_matrix=False, **settings)
    windows = build_adaptation_schedule(num_warmup)[1:-1]
    firsts, lasts = (np.array([window[k] for window in windows], int) for k in (0, 1))
    capacity = min(int(np.max(lasts - firsts + 1, initial=1)), MAX_DRAWS)

    def init(z_info, rng_key, step_size=1.0, inverse_mass_matrix=None):
        x, _ = ravel_pytree(z_info[0])
        if inverse_mass_matrix is None:
            inverse_mass_matrix = jnp.ones_like(x)
        # So many directions are spanned by as many draws, and gradients.
        root = LowRankRoot.diagonal(inverse_mass_matrix, min(rank, x.size, 2 * capacity))
        return init_base(z_info, rng_key, step_size, inverse_mass_matrix)._replace(
            inverse_mass_matrix=root,
            mass_matrix_sqrt=None,
            mass_matrix_sqrt_inv=root,
            mm_state=Window.start(capacity, x) if adapt_mass_matrix and windows else None,
        )

    def update(t, accept_prob, z_info, state):
        new, window = update_base(t, accept_prob, z_info, state), state.mm_state
        if window is None:
            return new
        z, grad = z_info
        window = window._replace(count=jnp.where(jnp.any(t == firsts), 0, window.count))
        window = window.after(ravel_pytree(z)[0], grad)
        root = state.inverse_mass_matrix

        def learned():
            num_draws = jnp.minimum(window.count, capacity)
            return low_rank_root(window.x, window.grad, num_draws, root.stretch.size)

        # All chains end a window with the same draw, and no other draw pays for it.
        root = lax.cond(jnp.any(t == lasts), learned, lambda: root)
        return new._replace(inverse_mass_matrix=root, mass_matrix_sqrt_inv=root, mm_state=window)

    return init, update
