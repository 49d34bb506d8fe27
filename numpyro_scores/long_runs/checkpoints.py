# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How far a run is: the states of its chains and the moments of their draws, alive and stored."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import random

from numpyro_scores._words import is_key
from numpyro_scores.long_runs.moments import RunningMoments
from numpyro_scores.long_runs.processes import Processes
from numpyro_scores.long_runs.stores import WARMUP, Checkpoint


class Progress:
    """
    States and moments of each batch of chains, on the host.

    :param identity: what the run is a run of.
    :param sizes: numbers of chains and, if there are many, of data sets.
    :param lanes: which chains, or which data sets, each batch is about. Some may be in two.
    :param states: a state for each batch, with a leading axis of its chains or data sets.
    :param processes: those that draw; `lanes` and `states` are of this one.
    """

    def __init__(
        self,
        identity: dict[str, Any],
        sizes: dict[str, int],
        lanes: list[slice],
        states: list[Any],
        processes: Processes,
    ):
        self._identity, self._sizes, self._lanes = identity, sizes, lanes
        self._processes = processes
        # Steps, and those of them whose draws are kept.
        self.num_warmup = self.num_warmup_draws = 0
        self.num_draws = self.num_committed = 0
        self.is_enough = False
        # The number of draws at which convergence is looked at.
        self.next_look = 0
        self.states = [on_host(state) for state in states]
        self.moments: list[list[RunningMoments] | None] = [None] * len(states)
        self._num_own_divergences = 0
        # Of all chains, since `share`: states, moments of each leaf of the draws, and divergences.
        self.state: Any = None
        self.all_moments: list[RunningMoments] = []
        self.num_divergences = 0

    @property
    def num_chains(self) -> int:
        return self._sizes["chain"]

    def share(self) -> None:
        """Put together what is known of the batches, here and in the other processes."""
        states = jax.tree.map(lambda *parts: self._assembled(parts, 0), *self.states)
        leaves, treedef = jax.tree.flatten(states)
        batches = [moments for moments in self.moments if moments is not None]
        axis = 1 if "dataset" in self._sizes else 0
        moments = [
            self._assembled([getattr(part, name) for part in parts], axis)
            for parts in zip(*batches, strict=True)
            for name in ("mean", "squares")
        ]
        divergences = np.array([self._num_own_divergences])
        *joined, counts = self._processes.joined([*leaves, *moments, divergences])
        self.state = treedef.unflatten(joined[: len(leaves)])
        moments = joined[len(leaves) :]
        self.all_moments = [
            RunningMoments(self.num_draws, mean, squares)
            for mean, squares in zip(moments[::2], moments[1::2], strict=True)
        ]
        self.num_divergences = int(counts.sum())

    def _assembled(self, parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
        """What is known of each batch as one array."""
        if len(parts) == 1:
            return parts[0]
        shape, first = list(parts[0].shape), self._lanes[0].start
        shape[axis] = self._lanes[-1].stop - first
        whole = np.empty(shape, parts[0].dtype)
        for lanes, part in zip(self._lanes, parts, strict=True):
            own = slice(lanes.start - first, lanes.stop - first)
            whole[(slice(None),) * axis + (own,)] = part
        return whole

    def advance(self, num_draws: int, states: list[Any]) -> None:
        """Count what has been drawn for all batches."""
        self.num_draws += num_draws
        self.states = states

    def advance_warmup(self, num_steps: int, num_draws: int, states: list[Any]) -> None:
        """Count steps of warmup, and the draws of them that are kept."""
        self.num_warmup += num_steps
        self.num_warmup_draws += num_draws
        self.states = states

    def add(self, batch: int, moments: list[RunningMoments], num_divergences: int) -> None:
        """Count in the draws of a batch."""
        known = self.moments[batch]
        if known is not None:
            moments = [a.merged(b) for a, b in zip(known, moments, strict=True)]
        self.moments[batch] = moments
        self._num_own_divergences += num_divergences

    def checkpoint(self) -> Checkpoint:
        """What a store keeps of what was shared."""
        arrays = {f"state_{i}": x for i, x in enumerate(jax.tree.leaves(self.state))}
        for i, moments in enumerate(self.all_moments):
            arrays |= {f"mean_{i}": moments.mean, f"squares_{i}": moments.squares}
        record = {
            "num_draws": self.num_draws,
            "num_warmup": self.num_warmup,
            "num_warmup_draws": self.num_warmup_draws,
            "num_divergences": self.num_divergences,
            "next_look": self.next_look,
            "sizes": self._sizes,
            "run": self._identity,
        }
        return Checkpoint(record, arrays)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from what a store has kept; states and moments were those of the start."""
        record, arrays = checkpoint
        self.num_draws, self.num_warmup = record["num_draws"], record["num_warmup"]
        self.num_warmup_draws = checkpoint.length(WARMUP)
        self.num_committed = self.num_draws
        self.next_look = record["next_look"]
        if self._processes.is_first:
            self._num_own_divergences = record["num_divergences"]
        template, treedef = jax.tree.flatten(self.states[0])
        leaves = [_typed(arrays[f"state_{i}"], x.dtype) for i, x in enumerate(template)]
        self.states = [treedef.unflatten([x[lanes] for x in leaves]) for lanes in self._lanes]
        num_leaves = sum(name.startswith("mean_") for name in arrays)
        if not num_leaves:
            return
        for b, lanes in enumerate(self._lanes):
            of_lanes = (slice(None), lanes) if "dataset" in self._sizes else lanes
            self.moments[b] = [
                RunningMoments(
                    self.num_draws, arrays[f"mean_{i}"][of_lanes], arrays[f"squares_{i}"][of_lanes]
                )
                for i in range(num_leaves)
            ]


def on_host(tree: Any) -> Any:
    """Arrays on the host, the numbers of typed keys among them."""
    return jax.device_get(
        jax.tree.map(lambda x: random.key_data(x) if _is_typed_key(x) else x, tree)
    )


def with_keys(tree: Any, like: Any) -> Any:
    """What :func:`on_host` has made numbers of, as the keys that they were."""
    return jax.tree.map(
        lambda x, y: random.wrap_key_data(x, impl=random.key_impl(y)) if _is_typed_key(y) else x,
        tree,
        like,
    )


def _is_typed_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and is_key(x)


def _typed(x: np.ndarray, dtype: Any) -> np.ndarray:
    """A file may have kept the bytes of a dtype that NumPy does not know."""
    return x if x.dtype == dtype else x.view(dtype)
