# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A loop of steps that each take random numbers of their own."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax, random

# Of a chain. Beyond it the numbers of all steps would need as much memory as many points.
LARGEST_AT_ONCE = 2**16


def scan_random(
    step: Callable[[Any, Any], tuple[Any, Any]],
    draw: Callable[[Array, tuple[int, ...]], Any],
    carry: Any,
    key: Array,
    num_steps: int,
) -> tuple[Any, Any]:
    """
    `lax.scan` of `step(carry, numbers)` with `numbers = draw(key, ())` for each step. As long as
    they are few, those of all steps are drawn before the loop, by `draw(key, (num_steps,))`: in a
    loop on a CPU, XLA generates the numbers of a few chains two to three times slower.
    """
    leaves = jax.tree.leaves(jax.eval_shape(lambda key: draw(key, (num_steps,)), key))
    if sum(math.prod(leaf.shape) for leaf in leaves) <= LARGEST_AT_ONCE:
        return lax.scan(step, carry, draw(key, (num_steps,)))
    keys = random.split(key, num_steps)
    return lax.scan(lambda carry, key: step(carry, draw(key, ())), carry, keys)
