# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Running sums of independent increments, a Markov chain of one number, and their exact denoiser: for
each number of the signal the forward and the backward messages of the chain, on a lattice.

Signals are in units in which all of them stay within 32 of zero (a walk that would leave is not
followed further, which for heavy tails is part of what the prior is). At large noise levels the
lattice is the same for all numbers; at small ones each number has nodes of its own around the noisy
value, as fine as the noise asks for, and on a common lattice so that an increment of exactly zero
stays one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

LIMIT, NUM_NODES = 32.0, 256
SPACING = 2 * LIMIT / NUM_NODES
# Nodes a number has at small noise levels, and their distance in noise levels: up to 6 of these to
# each side. Where a signal stands still over 30 numbers the product of 30 Gaussians is narrower
# than each by the root of that, and still is wider than the distance of two nodes.
NUM_LOCAL_NODES, LOCAL_SPACING = 48, 0.25
# Below this the nodes are local; there both lattices are equally fine.
LOCAL_BELOW = SPACING / LOCAL_SPACING
TINY = 1e-30


class Increments(NamedTuple):
    """
    The law of an increment: zero with a probability, else of a mixture of one Gaussian, one Laplace
    and one Cauchy density of the same scale. All of shape `()`.
    """

    zero: Array
    gauss: Array
    laplace: Array
    cauchy: Array
    scale: Array

    def on_lattice(self, lag: ArrayLike, spacing: ArrayLike) -> Array:
        r"""
        The probability of an increment of `lag` steps. Sums over a lattice are exact but for terms
        of order :math:`e^{-2 \pi s / h}` for the smooth densities; the corner of the Laplace
        density at zero makes them too large by :math:`h^2 / 12 s^2`, which is taken off there.
        """
        lag = jnp.asarray(lag, self.scale.dtype)
        u = lag * spacing / self.scale
        density = (
            self.gauss * jnp.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
            + self.laplace * jnp.exp(-jnp.abs(u)) / 2
            + self.cauchy / (np.pi * (1 + u**2))
        )
        step = spacing / self.scale
        return density * step + jnp.where(lag == 0, self.zero - self.laplace * step**2 / 12, 0.0)


def increments(
    scale: float,
    *,
    zero: float = 0.0,
    gauss: float = 0.0,
    laplace: float = 0.0,
    cauchy: float = 0.0,
) -> Increments:
    return Increments(*(jnp.asarray(a, jnp.float32) for a in (zero, gauss, laplace, cauchy, scale)))


def denoise(law: Increments, x: Array, sigma: Array) -> Array:
    """`E[x_0 | x_0 + sigma z = x]` of a signal, shape `(length,)`, whose walk starts at zero."""
    return lax.cond(sigma < LOCAL_BELOW, _denoise_locally, _denoise_globally, law, x, sigma)


def _denoise_globally(law: Increments, x: Array, sigma: Array) -> Array:
    index = jnp.arange(NUM_NODES) - NUM_NODES // 2
    kernel = law.on_lattice(index[:, None] - index, SPACING)
    first = law.on_lattice(index, SPACING)
    offset = x[:, None] - SPACING * index
    likelihood = _likelihood(offset, sigma)
    # One matrix for all steps and signals: under `vmap` these are products of matrices.
    return x - _mean(likelihood, first, offset, lambda f, _: f @ kernel, None)


def _denoise_locally(law: Increments, x: Array, sigma: Array) -> Array:
    spacing = LOCAL_SPACING * sigma
    index = jnp.round(lax.stop_gradient(x) / spacing) - NUM_LOCAL_NODES // 2
    index = index[:, None] + jnp.arange(NUM_LOCAL_NODES)
    kernels = law.on_lattice(index[1:, :, None] - index[:-1, None, :], spacing)
    first = law.on_lattice(index[0], spacing)
    offset = x[:, None] - spacing * index
    likelihood = _likelihood(offset, sigma)
    return x - _mean(likelihood, first, offset, lambda f, kernel: kernel @ f, kernels)


def _likelihood(offset: Array, sigma: Array) -> Array:
    """Up to a factor for each number, so that a point beyond the lattice is drawn back to it."""
    squared = (offset / sigma) ** 2 / 2
    return jnp.exp(lax.stop_gradient(jnp.min(squared, axis=1, keepdims=True)) - squared)


def _mean(likelihood, first, offset, push, kernels):
    """
    The posterior mean of `offset` at each number.

    :param push: a step of the walk, of a message and the kernel of that step; symmetric laws take
        the same one backward, of the transposed kernel.
    """

    def forward(message, inputs):
        likelihood, kernel = inputs
        message = _normalised(push(message * likelihood, kernel))
        return message, message

    def backward(message, inputs):
        likelihood, kernel = inputs
        transposed = None if kernel is None else kernel.T
        message = _normalised(push(message * likelihood, transposed))
        return message, message

    first = _normalised(first)
    _, after = lax.scan(forward, first, (likelihood[:-1], kernels))
    last = jnp.ones_like(first)
    _, before = lax.scan(backward, last, (likelihood[1:], kernels), reverse=True)
    weight = jnp.concatenate([first[None], after]) * jnp.concatenate([before, last[None]])
    weight = weight * likelihood
    return jnp.sum(weight * offset, axis=1) / (jnp.sum(weight, axis=1) + TINY)


def _normalised(message: Array) -> Array:
    # What underflows everywhere says nothing, and is as good as no message.
    return message / (jnp.max(message) + TINY) + TINY


def batched(law: Increments, x: Array, sigma: Array) -> Array:
    """Of signals of shape `(n, length)` at one noise level."""
    return jax.vmap(denoise, in_axes=(None, 0, None))(law, x, sigma)
