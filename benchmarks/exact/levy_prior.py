# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Running sums of independent increments, a Markov chain of one number, and their exact denoiser and
energy: for each number of the signal the forward and the backward messages of the chain, on a
lattice.

Signals are in units in which all of them stay within 32 of zero (a walk that would leave is not
followed further, which for heavy tails is part of what the prior is). At large noise levels the
lattice is the same for all numbers; at small ones each number has nodes of its own around the noisy
value, as fine as the noise asks for, and on a common lattice so that an increment of exactly zero
stays one.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

LIMIT, NUM_NODES = 32.0, 256
SPACING = 2 * LIMIT / NUM_NODES
# A lattice of half as many nodes serves where noise and increments are this much wider than it.
COARSE_NODES, COARSE_SPACING = NUM_NODES // 2, 2 * SPACING
COARSE_ABOVE, COARSE_SCALE = 4 * COARSE_SPACING, 2 * COARSE_SPACING
# Nodes a number has at small noise levels, and their distance in noise levels: up to 4.5 of these
# to each side. Where a signal stands still over 30 numbers the product of 30 Gaussians is narrower
# than each by the root of that, and still is wider than the distance of two nodes.
NUM_LOCAL_NODES, LOCAL_SPACING = 36, 0.25
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
    return x - lax.switch(_lattice(law, sigma), _of_chains(_mean), law, x, sigma)


def energy(law: Increments, x: Array, sigma: Array) -> Array:
    r"""
    :math:`-\log p_\sigma(x)` of a signal, shape `()`: the sum over all walks on the lattice, by
    the forward messages. Walks within the limits count: the integral is their probability.
    """
    found = lax.switch(_lattice(law, sigma), _of_chains(_log_sum), law, x, sigma)
    return len(x) * jnp.log(np.sqrt(2 * np.pi) * sigma) - found


class Chain(NamedTuple):
    """
    - **likelihood** - of each number at its nodes, up to the factor `exp(-least)`, so that a point
      beyond the lattice is drawn back to it; shape `(length, nodes)`.
    - **least** - shape `(length,)`.
    - **first** - the law of the first number, shape `(nodes,)`.
    - **offset** - of the nodes from the noisy value, shape `(length, nodes)`.
    - **push** - `push(message, shift)`: a message after a step of the walk, to nodes that begin
      `shift` places further; laws are symmetric, so that backward is a step of minus the shift.
    - **shifts** - of the nodes of each number from those of the one before, shape `(length - 1,)`.
    """

    likelihood: Array
    least: Array
    first: Array
    offset: Array
    push: Callable[[Array, Array], Array]
    shifts: Array


def _lattice(law, sigma):
    """The place of a lattice among :func:`_of_chains`."""
    is_coarse = (sigma >= COARSE_ABOVE) & (law.scale >= COARSE_SCALE)
    return jnp.where(sigma < LOCAL_BELOW, 0, jnp.where(is_coarse, 2, 1))


def _of_chains(function):
    """A function of a chain as one of law, signal and noise level, for each of the lattices."""
    chains = _local_chain, partial(_global_chain, NUM_NODES), partial(_global_chain, COARSE_NODES)
    return [lambda law, x, sigma, chain=chain: function(chain(law, x, sigma)) for chain in chains]


def _global_chain(num_nodes, law, x, sigma):
    spacing = 2 * LIMIT / num_nodes
    index = jnp.arange(num_nodes) - num_nodes // 2
    kernel = law.on_lattice(index[:, None] - index, spacing)
    first = law.on_lattice(index, spacing)
    offset = x[:, None] - spacing * index
    # One matrix for all steps and signals: under `vmap` these are products of matrices.
    shifts = jnp.zeros(len(x) - 1)
    return Chain(*_likelihood(offset, sigma), first, offset, lambda f, _: f @ kernel, shifts)


def _local_chain(law, x, sigma):
    # Any spacing will do: where the energy is differentiated by the noise level the nodes stay.
    spacing = LOCAL_SPACING * lax.stop_gradient(sigma)
    index = jnp.arange(NUM_LOCAL_NODES)
    start = jnp.round(lax.stop_gradient(x) / spacing) - NUM_LOCAL_NODES // 2

    def push(message, shift):
        return law.on_lattice(shift + index[:, None] - index, spacing) @ message

    first = law.on_lattice(start[0] + index, spacing)
    offset = x[:, None] - spacing * (start[:, None] + index)
    return Chain(*_likelihood(offset, sigma), first, offset, push, jnp.diff(start))


def _likelihood(offset: Array, sigma: Array) -> tuple[Array, Array]:
    squared = (offset / sigma) ** 2 / 2
    least = lax.stop_gradient(jnp.min(squared, axis=1))
    return jnp.exp(least[:, None] - squared), least


def _mean(chain: Chain) -> Array:
    """The posterior mean of the offset at each number."""

    def step(message, inputs):
        likelihood, shift = inputs
        message = _normalised(chain.push(message * likelihood, shift))
        return message, message

    first, likelihood = _normalised(chain.first), chain.likelihood
    _, after = lax.scan(step, first, (likelihood[:-1], chain.shifts))
    last = jnp.ones_like(first)
    _, before = lax.scan(step, last, (likelihood[1:], -chain.shifts), reverse=True)
    weight = jnp.concatenate([first[None], after]) * jnp.concatenate([before, last[None]])
    weight = weight * likelihood
    return jnp.sum(weight * chain.offset, axis=1) / (jnp.sum(weight, axis=1) + TINY)


def _log_sum(chain: Chain) -> Array:
    """The logarithm of the sum over all walks."""

    def step(carry, inputs):
        message, log_size = carry
        likelihood, shift = inputs
        pushed = chain.push(message * likelihood, shift)
        size = lax.stop_gradient(jnp.max(pushed)) + TINY
        return (pushed / size + TINY, log_size + jnp.log(size)), None

    start = chain.first, jnp.zeros((), chain.offset.dtype)
    (message, log_size), _ = lax.scan(step, start, (chain.likelihood[:-1], chain.shifts))
    total = jnp.sum(message * chain.likelihood[-1])
    return log_size + jnp.log(total + TINY) - jnp.sum(chain.least)


def _normalised(message: Array) -> Array:
    # What underflows everywhere says nothing, and is as good as no message.
    return message / (jnp.max(message) + TINY) + TINY


def batched(law: Increments, x: Array, sigma: Array) -> Array:
    """Of signals of shape `(n, length)` at one noise level."""
    return jax.vmap(denoise, in_axes=(None, 0, None))(law, x, sigma)
