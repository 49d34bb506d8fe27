# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A step of the probability flow, in the logarithm of the noise level."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

NODES, _WEIGHTS = (np.polynomial.legendre.leggauss(5) + np.array([[1.0], [0.0]])) / 2  # of [0, 1]
# Weights there of parabolas that are one at 0, 1/2 or 1 and zero at the other two.
_PARABOLAS = [2 * (NODES - 0.5) * (NODES - 1), 4 * NODES * (1 - NODES), 2 * NODES * (NODES - 0.5)]
PARABOLAS = (_WEIGHTS * np.array(_PARABOLAS)).T


def exponential_step(x: Array, fall: Array, stages: tuple[Array, Array, Array]) -> Array:
    r"""
    Where :math:`dx / dt = D - x` leads in a time `fall`, with the parabola through the values that
    `D` has at its start, in its middle and at its end.

    :param x: the start, shape `(d,)`.
    :param fall: of the logarithm of the noise level of each entry, shape `(d,)`.
    """
    first, second, third = stages
    # The integral of exp(t - fall) times the parabola through the three, by quadrature: the
    # closed forms lose their digits where levels are close.
    nodes, parabolas = jnp.asarray(NODES, x.dtype), jnp.asarray(PARABOLAS, x.dtype)
    kernel = fall[:, None] * jnp.exp(-fall[:, None] * (1 - nodes))
    a, b, c = (kernel @ parabolas).T
    return jnp.exp(-fall) * x + a * first + b * second + c * third


def fallen(x: Array, fall: Array, denoised: Array) -> Array:
    """The same where `D` stays as it is."""
    kept = jnp.exp(-fall)
    return kept * x + (1 - kept) * denoised


def in_steps(flow: Callable, x: Array, sigma: Array, new_sigma: Array, num_steps: int) -> Array:
    """A `flow(x, sigma, new_sigma)` by steps of equal ratios of the noise levels."""
    ratio = (new_sigma / sigma) ** (1 / num_steps)

    def step(k, x):
        return flow(x, sigma * ratio**k, sigma * ratio ** (k + 1))

    return step(0, x) if num_steps == 1 else lax.fori_loop(0, num_steps, step, x)
