# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a target of the table is: an energy of a flat vector, and moments that are known."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import constrain_fn, initialize_model


class Problem(NamedTuple):
    """
    - **potential** - of unconstrained values, shape `(d,)`.
    - **figures** - of the same: the numbers whose means are known, shape `(k,)`; most often the
      squares of the constrained values.
    - **mean**, **variance** - of each figure.
    - **start** - of a key: where a chain starts.
    - **published** - gradients of NUTS and of MAMS by arXiv 2503.01707, table 1; None if the data
      are not those of the paper.
    - **has_variances** - whether a metric can be learned from the variances of draws; the paper
      too leaves it out where there are none.
    """

    potential: Callable[[Array], Array]
    figures: Callable[[Array], Array]
    mean: np.ndarray
    variance: np.ndarray
    start: Callable[[Array], Array]
    published: tuple[float, float] | None
    has_variances: bool = True


def standard_normal(d: int) -> Callable[[Array], Array]:
    """A start, as the authors have it unless they say otherwise."""
    return lambda key: random.normal(key, (d,))


def of_model(model: Callable) -> tuple[Callable, Callable, int]:
    """Potential and constrained values, of a flat vector, and the dimension of a NumPyro model."""
    info = initialize_model(random.key(0), model)
    flat, unravel = ravel_pytree(info.param_info.z)

    def constrained(x: Array) -> Array:
        return ravel_pytree(constrain_fn(model, (), {}, unravel(x)))[0]

    def potential(x: Array) -> Any:
        return info.potential_fn(unravel(x))

    return potential, constrained, flat.size


def squares(constrained: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: jnp.square(constrained(x))


def worst_error(means: np.ndarray, problem: Problem) -> np.ndarray:
    r""":math:`\max_k (m_k - \mu_k)^2 / \sigma_k^2` over the last axis."""
    return np.max((means - problem.mean) ** 2 / problem.variance, axis=-1)


def starts(problem: Problem, num_chains: int) -> Array:
    """The same for every sampler."""
    return jax.vmap(problem.start)(random.split(random.key(2), num_chains))
