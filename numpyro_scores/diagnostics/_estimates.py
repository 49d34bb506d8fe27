# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A number with its standard error."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Estimate(NamedTuple):
    """
    - **value** - the estimate, shape `()`.
    - **standard_error** - its standard deviation over independent samples, shape `()`.
    """

    value: Array
    standard_error: Array


def mean_and_error(values: Array) -> Estimate:
    """The mean of independent values, shape `(n,)`, and its standard error."""
    return Estimate(jnp.mean(values), jnp.std(values, ddof=1) / jnp.sqrt(len(values)))
