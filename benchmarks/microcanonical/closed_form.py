# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Targets whose moments have a closed form, as arXiv 2503.01707 (table 1) defines them.
"""

import jax.numpy as jnp
import numpy as np
from jax import random

from benchmarks.microcanonical.problem import Problem, standard_normal


def gaussian() -> Problem:
    """In 100 dimensions, condition number 100, variances equally spaced in their logarithm."""
    variances = np.geomspace(0.1, 10.0, 100)
    precision = jnp.asarray(1 / variances)
    return Problem(
        lambda x: jnp.sum(precision * x**2) / 2,
        jnp.square,
        variances,
        2 * variances**2,
        standard_normal(100),
        (19_652, 3_249),
    )


def banana() -> Problem:
    """
    `x1 = 10 z`, `x2 ~ N(0.03 (x1^2 - 100), 1)`. With :math:`q = 3 (z^2 - 1)` the second moments of
    `q` and of its square are 18 and 4860.
    """

    def potential(x):
        return (x[0] / 10) ** 2 / 2 + (x[1] - 0.03 * (x[0] ** 2 - 100)) ** 2 / 2

    mean = np.array([100.0, 1 + 18])
    fourth = np.array([3e4, 3 + 6 * 18 + 4860])
    return Problem(
        potential,
        jnp.square,
        mean,
        fourth - mean**2,
        lambda key: jnp.array([20.0, 10.0]) * random.normal(key, (2,)),
        (95_519, 14_078),
    )


def bimodal() -> Problem:
    """In 50 dimensions, 3/4 of N(0, I) and 1/4 of N(4 e1, 0.36 I)."""
    d, share, shift, sd = 50, 0.25, 4.0, 0.6
    centre = jnp.zeros(d).at[0].set(shift)

    def potential(x):
        wide = jnp.log(1 - share) - jnp.vdot(x, x) / 2
        narrow = jnp.log(share) - d * jnp.log(sd) - jnp.sum((x - centre) ** 2) / (2 * sd**2)
        return -jnp.logaddexp(wide, narrow)

    shifts = np.asarray(centre)
    mean = 1 - share + share * (shifts**2 + sd**2)
    fourth = 3 * (1 - share) + share * (shifts**4 + 6 * shifts**2 * sd**2 + 3 * sd**4)
    return Problem(
        potential, jnp.square, mean, fourth - mean**2, standard_normal(d), (210_758, 139_418)
    )


def rosenbrock() -> Problem:
    """
    18 pairs `x ~ N(1, 1)`, `y ~ N(x^2, 0.1)`. The moments of N(1, 1) of order 4 and 8 are 10 and
    764.
    """
    noise = 0.1

    def potential(z):
        x, y = jnp.split(z, 2)
        return jnp.sum((x - 1) ** 2 + (x**2 - y) ** 2 / noise) / 2

    mean = np.repeat([2.0, 10 + noise], 18)
    fourth = np.repeat([10.0, 764 + 6 * noise * 10 + 3 * noise**2], 18)
    return Problem(
        potential, jnp.square, mean, fourth - mean**2, standard_normal(36), (161_359, 94_184)
    )


def cauchy() -> Problem:
    r"""
    A hundred independent ones. They have no moments: the figure is :math:`\ln \pi (1 + x^2)`, of
    mean :math:`\ln 4 \pi` and variance :math:`\pi^2 / 3`. The authors' code divides the squared
    error by the square of this variance in place of it, and so does this, or the numbers could not
    be compared.
    """

    def each(x):
        return jnp.log(jnp.pi) + jnp.log1p(x**2)

    return Problem(
        lambda x: jnp.sum(each(x)),
        each,
        np.full(100, np.log(4 * np.pi)),
        np.full(100, (np.pi**2 / 3) ** 2),
        standard_normal(100),
        (171_373, 110_404),
        has_variances=False,
    )


def funnel() -> Problem:
    """
    Neal's, in 20 dimensions: `theta ~ N(0, 9)`, `z ~ N(0, exp(theta))`. The figures are the squares
    of what is standard normal, `theta / 3` and `z exp(-theta / 2)`.
    """

    def potential(x):
        z, theta = x[:-1], x[-1]
        return (theta / 3) ** 2 / 2 + 19 * theta / 2 + jnp.exp(-theta) * jnp.vdot(z, z) / 2

    def figures(x):
        return jnp.append(x[:-1] * jnp.exp(-x[-1] / 2), x[-1] / 3) ** 2

    return Problem(
        potential, figures, np.ones(20), np.full(20, 2.0), standard_normal(20), (1e8, 2_346_899)
    )


CLOSED_FORM = {f.__name__: f for f in (gaussian, banana, bimodal, rosenbrock, cauchy, funnel)}
