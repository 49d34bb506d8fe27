# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The way down a U-Net and up again, level by level."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array


def descend(
    levels: Sequence[Any], x: Array, embedding: Array, picture: Array, *, remat: bool
) -> tuple[Array, list[Array]]:
    """
    :param levels: `level(x, embedding, picture)` returns what comes out, all that the way up will
        see of it, and the picture that is halved beside it.
    :param remat: whether a gradient computes what is inside of a level anew.
    :return: what comes out of the last level, and all that the way up will see.
    """
    seen: list[Array] = []
    for level in levels:
        x, new, picture = recomputed(level, remat)(x, embedding, picture)
        seen += new
    return x, seen


def ascend(
    levels: Sequence[Any], x: Array, seen: list[Array], embedding: Array, *, remat: bool
) -> tuple[Array, Array | None]:
    """
    :param levels: `level(x, seen, embedding, picture)` returns what comes out, and the picture that
        is doubled and added to; each of its `blocks` takes one of what the way down has seen.
    :param seen: of the way down, of which the last is taken first.
    :return: what comes out of the last level, and the picture, None if there was none.
    """
    picture = None
    for level in levels:
        number = len(level.blocks)
        mine, seen = seen[-number:], seen[:-number]
        x, picture = recomputed(level, remat)(x, mine, embedding, picture)
    return x, picture


def recomputed(level: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """A part of a network; with `remat` one of which a gradient keeps what goes in alone."""
    return jax.checkpoint(lambda *args: level(*args)) if remat else level
