# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Which programs XLA compiles, or fetches from its cache on disk, within a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the functions, filled in as they are compiled."""
    names: list[str] = []

    def listen(event, duration_secs, **kwargs):
        if event.endswith("/backend_compile_duration"):
            names.append(kwargs.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
