# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A part of stored draws that fits into memory, of which a report is made."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

# Of the draws that are looked at; and draws of each chain that are looked at anyway.
MAX_BYTES = 2**25
FEWEST_DRAWS = 1_000

Variable = tuple[str, str]
Read = Callable[[str, str, int, int], np.ndarray]


def thinning_for(read: Read, variables: Iterable[Variable], num_draws: int) -> int:
    """How many draws one stands for, so that what is looked at has bounded size."""
    size = sum(read(*variable, 0, 1).nbytes for variable in variables)
    kept = max(FEWEST_DRAWS, MAX_BYTES // max(size, 1))
    return -(-num_draws // kept)


def thinned(
    read: Read, variables: list[Variable], num_draws: int, every: int
) -> dict[Variable, np.ndarray]:
    """
    One of each `every` draws: the first, or of those that are not finite or diverge the first. So
    none of these is overlooked, however long the run was. A last few draws may be left out.

    :param read: draws of a group's variable from start to stop, shape `(chains, draws, ...)`.
    """
    num_kept = num_draws // every
    first = {variable: read(*variable, 0, 1) for variable in variables}
    found = {v: np.empty((len(x), num_kept, *x.shape[2:]), x.dtype) for v, x in first.items()}
    most = max(1, MAX_BYTES // max(sum(x.nbytes for x in first.values()), 1))
    # Several at a time; or each in parts, of draws that are large.
    step, width = max(1, most // every), min(most, every)
    for start in range(0, num_kept, step):
        stop = min(start + step, num_kept)
        seen: Any = False
        for at in range(0, every, width):
            length = min(width, every - at)
            end = (stop - 1) * every + at + length
            pieces = {v: read(*v, start * every + at, end) for v in variables}
            flags = np.any([_is_bad(v, x) for v, x in pieces.items()], axis=0)
            flags = flags.reshape(len(flags), stop - start, length)
            chosen = flags.argmax(axis=2) + np.arange(0, (stop - start) * length, length)
            is_bad = flags.any(axis=2)
            take = np.full_like(is_bad, at == 0) | (is_bad & ~np.asarray(seen))
            chains, places = np.nonzero(take)
            for variable, piece in pieces.items():
                found[variable][chains, start + places] = piece[chains, chosen[take]]
            seen = is_bad | seen
    return found


def _is_bad(variable: Variable, draws: np.ndarray) -> np.ndarray:
    """Which draws a report must see, shape `(chains, draws)`."""
    group, name = variable
    if group == "posterior":
        finite = np.isfinite(draws).reshape(*draws.shape[:2], -1)
        return np.asarray(~finite.all(axis=2))
    if name.endswith("diverging"):
        return np.asarray(draws.astype(bool).reshape(*draws.shape[:2], -1).any(axis=2))
    return np.zeros(draws.shape[:2], bool)
