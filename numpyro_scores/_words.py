# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Objects and arrays as words and numbers that are the same in every process."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random


def nameless(value: Any) -> str:
    """The `repr` of an object without the addresses in it, which are others in another process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def is_key(leaf: Any) -> bool:
    """Whether it is a typed key of `jax.random`."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_numpy(leaf: Any) -> np.ndarray:
    """An array, or the numbers of a key, on the host."""
    return np.asarray(random.key_data(leaf) if is_key(leaf) else leaf)
