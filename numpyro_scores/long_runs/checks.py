# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Stores and starts that a run is not made with."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from numpyro_scores.long_runs.checkpoints import Progress, on_host
from numpyro_scores.long_runs.identity import why_other
from numpyro_scores.long_runs.processes import Processes
from numpyro_scores.long_runs.stores import DrawStore, MemoryStore


def store_of(given: Any, processes: Processes) -> DrawStore:
    """The store that was asked for."""
    store = _store_of(given)
    if processes.number > 1:
        if not callable(getattr(store, "share", None)):
            raise TypeError(
                f"{processes.number} processes draw this run, and cannot write one "
                f"{type(store).__name__}: give a path that all of them reach (a ZarrStore), or a "
                "store with the method share(rank, number)."
            )
        store.share(processes.rank, processes.number)
    return store


def _store_of(given: Any) -> Any:
    if given is None:
        return MemoryStore()
    if isinstance(given, str | Path):
        from numpyro_scores.long_runs.zarr_store import ZarrStore

        return ZarrStore(given)
    missing = [
        name
        for name in ("load", "create", "append", "commit", "read", "open", "close")
        if not callable(getattr(given, name, None))
    ]
    if missing:
        raise TypeError(
            "store must be a path, None, or an object with the methods of a DrawStore; a "
            f"{type(given).__name__} has no {', '.join(missing)}."
        )
    return given


def check_same(store: DrawStore, there: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise if a store is that of another run."""
    if reasons := why_other(there, now):
        raise ValueError(
            f"{store!r} holds another run: {'; '.join(reasons)}. Call run as it was called then, "
            "or give another store. What it holds can be read as it is (docs/long_runs.md)."
        )


def check_states(kernel: str, states: Any) -> None:
    """Raise if a chain starts where its potential energy isn't finite."""
    energy = getattr(states, "potential_energy", None)
    if energy is None or not hasattr(energy, "ndim") or energy.ndim > 2:
        return
    finite = np.isfinite(on_host(energy))
    if not finite.all():
        raise ValueError(
            f"{kernel} has no potential energy at the start of {(~finite).sum()} of {finite.size} "
            "chains: start elsewhere (init_params or init_strategy), or look for NaN in the data."
        )


@contextmanager
def in_words(store: DrawStore, progress: Progress) -> Generator[None]:
    """A storage that fails, of a full disk say, is an error that says what is left."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{store!r} could not be written ({error.strerror or error}): it has "
            f"{progress.num_committed:,} draws of each chain, which can be read. Make room and "
            "call run again, which goes on from there.",
        ) from error
