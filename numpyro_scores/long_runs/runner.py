# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The loop of a run: the device draws a piece while the host stores the one before."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from numpyro_scores.long_runs.checkpoints import Progress, on_host
from numpyro_scores.long_runs.interrupts import Interrupts
from numpyro_scores.long_runs.lanes import count
from numpyro_scores.long_runs.moments import RunningMoments
from numpyro_scores.long_runs.names import Names
from numpyro_scores.long_runs.pace import Pace
from numpyro_scores.long_runs.plans import Plan, Wanted
from numpyro_scores.long_runs.processes import Processes
from numpyro_scores.long_runs.stores import WARMUP, DrawStore


class Piece(NamedTuple):
    """Steps for every batch: `num_draws` times `num_steps`, of which draws are stored or not."""

    num_draws: int
    num_steps: int
    is_warmup: bool
    is_kept: bool


class Launched(NamedTuple):
    """What a device has been told to do for one batch."""

    piece: Piece
    batch: int
    state: Any
    chunk: Any


class Runner:
    """
    Draws until all are there, or one says stop.

    :param plan: the programs, and what they are about.
    :param progress: how far it is.
    :param states: a state for each batch, as the programs take it.
    :param names: of the variables of the store.
    :param wanted: how long it is.
    :param processes: those that draw it.
    :param interrupts: whether somebody wants it to stop.
    :param fixed: whether a piece has `chunk_size` draws, and not as many as two seconds.
    :param after_commit: says what the bar shows, and by `progress.is_enough` whether to stop.
    :param attributes: what is to be noted with the groups.
    """

    def __init__(
        self,
        plan: Plan,
        progress: Progress,
        states: list[Any],
        names: Names,
        store: DrawStore,
        wanted: Wanted,
        processes: Processes,
        interrupts: Interrupts,
        *,
        fixed: bool,
        progress_bar: bool,
        after_commit: Callable[[Progress], str],
        attributes: Callable[[Progress], dict[str, dict[str, Any]]],
    ):
        self._programs, self._batches = plan.programs, plan.batches
        self._names, self._progress, self._store = names, progress, store
        self._wanted, self._thinning = wanted, wanted.thinning
        self._chunk_size, self._fixed = plan.chunk_size, fixed
        self._bar = tqdm(
            total=wanted.num_warmup + wanted.num_draws * self._thinning,
            initial=progress.num_warmup + progress.num_draws * self._thinning,
            disable=not (progress_bar and processes.is_first),
            unit="step",
        )
        self._after_commit, self._attributes = after_commit, attributes
        self._processes, self._interrupts, self._pace = processes, interrupts, Pace()
        # What the device has been told to do, ahead of what is stored.
        self._warmup, self._draws = progress.num_warmup, progress.num_draws
        self._states = states
        self._settled: list[Any] = []
        self._error: BaseException | None = None
        self._have_agreed_to_stop = False

    def run(self) -> None:
        """Draw; all that is drawn is committed."""
        pending: Launched | None = None
        with self._bar, self._interrupts:
            for launched in self._launches():
                if pending is not None:
                    self._settle(pending)
                    if self._progress.is_enough:
                        return
                pending = launched
            if pending is not None:
                self._settle(pending)

    @property
    def is_interrupted(self) -> bool:
        """Whether it stops before its end; several processes do at a piece that all agree on."""
        if self._processes.number == 1:
            return self._interrupts.is_asked_to_stop
        return self._have_agreed_to_stop

    def _launches(self) -> Iterator[Launched]:
        while (piece := self._next_piece()) is not None:
            for i, batch in enumerate(self._batches):
                state, chunk = self._programs.chunk(
                    batch.keys,
                    batch.params,
                    self._states[i],
                    count(piece.num_draws),
                    count(piece.num_steps),
                    batch.arrays,
                )
                self._states[i] = state
                yield Launched(piece, i, state, chunk)

    def _next_piece(self) -> Piece | None:
        if self.is_interrupted:
            return None
        if (left := self._wanted.num_unkept - self._warmup) > 0:
            most = self._chunk_size * self._thinning if self._fixed else self._pace.num_steps
            self._warmup += (steps := min(left, most))
            return Piece(1, steps, True, False)
        if (left := self._wanted.num_warmup - self._warmup) > 0:
            before = (self._warmup - self._wanted.num_unkept) // self._thinning
            draws = self._most_draws(before, left // self._thinning)
            self._warmup += draws * self._thinning
            return Piece(draws, self._thinning, True, True)
        if (left := self._wanted.num_draws - self._draws) > 0:
            draws = self._most_draws(self._draws, left)
            self._draws += draws
            return Piece(draws, self._thinning, False, True)
        return None

    def _most_draws(self, before: int, left: int) -> int:
        """How many draws a piece has."""
        # Up to where a chunk of the store ends: none is then written twice at full speed.
        most = self._chunk_size - before % self._chunk_size
        if not self._fixed:
            most = min(most, max(1, self._pace.num_steps // self._thinning))
        return min(left, most)

    def _settle(self, launched: Launched) -> None:
        """Wait for a batch and store it; after the last one, all of the piece."""
        piece = launched.piece
        try:
            # This waits.
            self._settled.append(on_host(launched.state))
            if piece.is_kept and self._error is None:
                self._append(piece, launched)
        except BaseException as error:
            # Of several processes the others are to hear of it, a second Ctrl-C as well.
            self._error = error
        if launched.batch < len(self._batches) - 1 and self._error is None:
            return
        # All draws of the piece are stored, in every process, before the first one commits.
        self._processes.together(self._check_written)
        states, self._settled = self._settled, []
        num_steps = piece.num_draws * piece.num_steps
        if piece.is_warmup:
            num_kept = piece.num_draws if piece.is_kept else 0
            self._progress.advance_warmup(num_steps, num_kept, states)
        else:
            self._progress.advance(piece.num_draws, states)
        self._progress.share()
        text = self._processes.together(lambda: self._commit(piece))
        self._progress.num_committed = self._progress.num_draws
        self._pace.finished(num_steps)
        self._agree()
        self._bar.set_description("warmup" if piece.is_warmup else "sample", refresh=False)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(num_steps)

    def _check_written(self) -> None:
        if self._error is not None:
            raise self._error

    def _commit(self, piece: Piece) -> str:
        """Make the piece valid; what is to be said of the run."""
        if not self._processes.is_first:
            return ""
        self._store.commit(self._progress.checkpoint(), self._attributes(self._progress))
        return "" if piece.is_warmup else self._after_commit(self._progress)

    def _agree(self) -> None:
        """How long the next piece is, and whether there is one: the same in all processes."""
        if self._processes.number == 1:
            return
        own = [self._pace.num_steps, self._progress.is_enough, self._interrupts.is_asked_to_stop]
        every = np.stack([x for (x,) in self._processes.gathered([np.array(own)])])
        self._pace.num_steps, self._progress.is_enough = int(every[0, 0]), bool(every[0, 1])
        self._have_agreed_to_stop = bool(every[:, 2].any())

    def _append(self, piece: Piece, launched: Launched) -> None:
        region, num_draws = self._batches[launched.batch].region, piece.num_draws
        progress = self._progress
        start = progress.num_warmup_draws if piece.is_warmup else progress.num_draws
        prefix = WARMUP if piece.is_warmup else ""
        has_datasets = "dataset" in region
        samples, fields, moments = jax.device_get(launched.chunk)

        def arranged(x):
            # As stores have it: chains, then draws, then data sets.
            x = np.moveaxis(x, 2, 0) if has_datasets else np.swapaxes(x, 0, 1)
            return x[:, :num_draws]

        samples, fields = jax.tree.map(arranged, (samples, fields))
        for group, variables in self._names.groups(samples, fields).items():
            own = region | {"draw": slice(start, start + num_draws)}
            self._store.append(f"{prefix}{group}", variables, own)
        if piece.is_warmup:
            return
        # Of what is kept, by which the bar finds the worst; before it of all sites, if that is not
        # the same.
        found = [RunningMoments.of(x) for x in jax.tree.leaves(samples)]
        if moments is not None:
            if has_datasets:
                moments = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), moments)
            leaves = zip(*(jax.tree.leaves(part) for part in moments), strict=True)
            found = [*(RunningMoments.about(num_draws, *own) for own in leaves), *found]
        diverging = [x for name, x in fields.items() if name.split(".")[-1] == "diverging"]
        progress.add(launched.batch, found, sum(int(np.sum(x)) for x in diverging))
