# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Data that are not Normal, averaged over a Gaussian value.

Of the log density :math:`\ell_k` of each number a value :math:`v \sim N(m, \Sigma)` enters by one
coordinate, along the slope :math:`a_k = \nabla \ell_k(m)`,

.. math:: t_k = a_k^\top (v - m) / (a_k^\top \Sigma a_k)^{1/2}, \qquad
          E[v \mid t_k] = m + t_k\, \delta_k, \quad
          \delta_k = \Sigma a_k / (a_k^\top \Sigma a_k)^{1/2},

as it does if :math:`\ell_k` is a function of one linear function of `v`. One number after another
is then averaged over its coordinate by quadrature, and the Gaussian of all coordinates is given the
mean and the variance that this one has afterwards: assumed density filtering (Minka 2001,
"Expectation propagation for approximate Bayesian inference", section 3). The product of the
averages is exact for one number, for numbers that are Normal in `v`, and for independent ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp

# Of N(0, 1): equal steps are more exact than Gauss's for a likelihood that is narrow.
NODES = np.linspace(-4.2, 4.2, 25)
STEP = NODES[1] - NODES[0]
LARGEST_SEPARATE = 16  # numbers with a line each
SMALLEST_PRECISION = 1e-3  # of what a number adds, whose pull is divided by it


class Lines(NamedTuple):
    r"""
    - **rows** - of :math:`t` as a function of :math:`v - m`, shape `(n, d)`.
    - **shifts** - :math:`\delta`, shape `(n, d)`.
    - **correlation** - of the coordinates, shape `(n, n)`.
    """

    rows: Array
    shifts: Array
    correlation: Array


class Filtered(NamedTuple):
    """
    - **log_mean** - logarithm of the mean of the likelihood.
    - **roots**, **values** - what each number says of its coordinate, as a Normal one of variance 1
      with the mean `root * t`; each of shape `(n,)`.
    """

    log_mean: Array
    roots: Array
    values: Array


def separate(log_densities: Array, is_noisy: np.ndarray) -> Array:
    """
    The log densities that are averaged one by one: the sum of all where they are many, and of a
    value in one dimension, of which the average of all at once is exact.
    """
    is_one = log_densities.size > LARGEST_SEPARATE or np.sum(is_noisy) == 1
    return jnp.sum(log_densities)[None] if is_one else log_densities


def lines_of(slopes: Array, pulled: Array) -> Lines:
    """
    :param slopes: of the log densities, shape `(n, d)`.
    :param pulled: the covariance of the value times each of them.
    """
    squares = jnp.sum(slopes * pulled, axis=1)
    lengths = jnp.sqrt(jnp.where(squares > 0, squares, 1))[:, None]
    is_open = (squares > 0)[:, None]
    rows, shifts = (jnp.where(is_open, x / lengths, 0) for x in (slopes, pulled))
    products = rows @ shifts.T
    return Lines(rows, shifts, (products + products.T) / 2)


def filtered(f: Callable[[Array], Array], mean: Array, lines: Lines) -> Filtered:
    """
    :param f: the log densities of all numbers at a value, shape `(n,)`; what is not a number counts
        as minus infinity.
    :param mean: of the value.
    """
    nodes = jnp.asarray(NODES, mean.dtype)

    def of_number(state, k):
        centre, covariance = state
        variance = covariance[k, k]
        is_open = variance > 0
        sd = jnp.where(is_open, jnp.sqrt(jnp.where(is_open, variance, 1)), 0)

        def log_weights(z):
            t = centre[k] + sd * z
            values = jax.vmap(lambda t: f(mean + t * lines.shifts[k])[k])(t)
            values = jnp.where(jnp.isnan(values), -jnp.inf, values)
            return values - z**2 / 2 - np.log(2 * np.pi) / 2

        _, at, var = _moments(log_weights(nodes) + np.log(STEP), nodes)
        # Once more, by nodes that are dense where a narrow likelihood is, and go as far as before;
        # twice, since of one between two nodes the first ones know the place and not the width.
        for smallest in (STEP / 2, 0.0):
            width = jnp.sqrt(jnp.maximum(var, smallest**2))
            end = jnp.arcsinh((NODES[-1] + jnp.abs(at)) / width) / NODES[-1]
            spaced = at + width * jnp.sinh(end * nodes)
            spacing = jnp.log(STEP * width * end * jnp.cosh(end * nodes))
            log_mean, at, var = _moments(log_weights(spaced) + spacing, spaced)
        step = jnp.where(is_open, covariance[k] / jnp.where(is_open, sd, 1), 0)
        centre_after = centre + step * at
        covariance = covariance - jnp.outer(step, step) * (1 - var)
        precision = jnp.maximum(1 / var - 1, SMALLEST_PRECISION)
        root = jnp.where(is_open, jnp.sqrt(precision) / jnp.where(is_open, sd, 1), 0)
        value = root * centre[k] + jnp.where(is_open, at * (1 + precision) / precision**0.5, 0)
        return (centre_after, covariance), Filtered(log_mean, root, value)

    n = len(lines.rows)
    start = jnp.zeros(n, mean.dtype), lines.correlation
    _, found = lax.scan(of_number, start, jnp.arange(n))
    return found._replace(log_mean=jnp.sum(found.log_mean))


def _moments(log_weights: Array, nodes: Array) -> tuple[Array, Array, Array]:
    """The logarithm of the sum of weights, and mean and variance of the nodes under them."""
    total = logsumexp(log_weights)
    is_known = jnp.isfinite(total)
    weights = jnp.where(is_known, jnp.exp(log_weights - jnp.where(is_known, total, 0)), 0)
    mean = jnp.vdot(weights, nodes)
    variance = jnp.vdot(weights, (nodes - mean) ** 2)
    smallest = jnp.finfo(nodes.dtype).eps
    return total, mean, jnp.where(is_known, jnp.maximum(variance, smallest), 1)
