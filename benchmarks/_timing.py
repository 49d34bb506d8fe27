# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks share: a clock that waits for JAX, and a look at what JAX compiles."""

import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import jax


def timed(
    f: Callable, *args: Any, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, Any]:
    """
    Seconds until the result is there, and the result.

    :param clock: `time.process_time` on a machine that works for others too.
    """
    start = clock()
    result = jax.block_until_ready(f(*args))
    return clock() - start, result


@contextmanager
def compiled_once() -> Generator[None, None, None]:
    """
    Programs that are compiled inside are kept in a folder until the end: what `MCMC.run` compiles
    again at every call is then no part of what is timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        yield


@contextmanager
def compilations() -> Generator[list[str], None, None]:
    """The names of the programs that are compiled inside, in a list that grows."""
    names: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event.endswith("/backend_compile_duration"):
            names.append(kwargs.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
