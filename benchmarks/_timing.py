# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks share: a clock that waits for JAX."""

import time
from collections.abc import Callable
from typing import Any

import jax


def timed(f: Callable, *args: Any) -> tuple[float, Any]:
    """Seconds until the result is there, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(f(*args))
    return time.perf_counter() - start, result
