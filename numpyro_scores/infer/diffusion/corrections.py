# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Metropolis steps after an approximate draw, and how much they have moved it.

A draw of the posterior :math:`\pi` stays one under steps that leave :math:`\pi` as it is, so that
:math:`\log \pi` neither rises nor falls on average. By as many nats as it does, draws were off.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores.curvature import NUM_FIRST_ITERATIONS, block_directions, largest_curvature
from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer.guards import sites_at
from numpyro_scores.infer.langevin import mala
from numpyro_scores.infer.langevin.targets import Target


class Corrected(NamedTuple):
    """
    - **x** - the draw after the steps, shape `(d,)`.
    - **rise** - of its log density in the steps, in nats.
    - **accept_prob** - mean acceptance probability of the steps.
    - **num_grad_evals** - number of gradients, a Hessian-vector product counted as 2.
    """

    x: Array
    rise: Array
    accept_prob: Array
    num_grad_evals: int


def corrected(
    key: Array,
    x: Array,
    potential_fn: Callable[[Array], Array],
    groups: np.ndarray,
    num_steps: int,
) -> Corrected:
    """
    A draw after `num_steps` steps of MALA. Their size and their metric, one scale for each group
    of entries, follow the curvature at the draw and do not change then.

    :param potential_fn: of the posterior.
    :param groups: the group of each entry, integers of shape `(d,)`.
    """
    key_directions, key_steps = random.split(key)
    target = Target(potential_fn)
    directions = block_directions(random.normal(key_directions, x.shape, x.dtype), groups)
    curvature, _ = largest_curvature(jax.grad(potential_fn), x, directions, NUM_FIRST_ITERATIONS)
    usable = jnp.isfinite(curvature) & (curvature > 0)
    root = jnp.where(usable, 1 / jnp.sqrt(jnp.where(usable, curvature, 1)), 0)[groups]
    # Optimal where all directions are as stiff as the stiffest.
    step_size = jnp.asarray(1.36 * x.size ** (-1 / 3), x.dtype)
    start = target.at(x)
    end = mala.step(key_steps, start, target, step_size, root, num_steps)
    num_blocks = len(directions)
    return Corrected(
        x=end.point.x,
        rise=start.energy - end.point.energy,
        accept_prob=end.accept_prob,
        num_grad_evals=num_steps + 1 + 2 * NUM_FIRST_ITERATIONS * num_blocks,
    )


def check_corrected(
    name: str, model: Callable, args: tuple, kwargs: dict, values: dict[str, Any]
) -> None:
    """
    Raise unless the value of every noise-conditional prior is that of its score.

    :param name: of the kernel.
    """
    for site, entries in sites_at(model, args, kwargs, values).items():
        prior = noise_conditional_prior(entries["fn"]) if site in values else None
        if prior is not None and not getattr(prior, "has_energy", False):
            raise ValueError(
                f"num_corrections of {name} are Metropolis steps, which compare values of the "
                f"prior of {site!r}: that of a denoiser is an integral of many evaluations, and of "
                "another density than its score. Take a DiffusionPrior of an energy, U(x, sigma) "
                "-> (), or num_corrections=0."
            )
