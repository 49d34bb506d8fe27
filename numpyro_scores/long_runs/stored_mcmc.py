# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""NumPyro's `MCMC` for runs that are longer than memory, and than a process lives."""

import copy
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
from jax import Array, random
from numpyro.infer.mcmc import MCMCKernel

from numpyro_scores._validation import check_key
from numpyro_scores.diagnostics.report.parts import ATTRIBUTE, Record, parts_of, written
from numpyro_scores.long_runs.arguments import (
    chain_keys,
    chain_params,
    check_kernel,
    check_rule,
    check_settings,
    data_sets,
    fields_of,
    is_array,
)
from numpyro_scores.long_runs.checkpoints import Progress, with_keys
from numpyro_scores.long_runs.checks import check_same, check_states, in_words, store_of
from numpyro_scores.long_runs.convergence import FEWEST_DRAWS, GROWTH, WORST, Convergence, Until
from numpyro_scores.long_runs.interrupts import Interrupts
from numpyro_scores.long_runs.layout import groups_of
from numpyro_scores.long_runs.plans import Plan, Setup, Wanted, plan_of
from numpyro_scores.long_runs.processes import processes_of
from numpyro_scores.long_runs.results import StoredResults
from numpyro_scores.long_runs.runner import Runner
from numpyro_scores.long_runs.stores import MemoryStore


class StoredMCMC(StoredResults):
    """
    NumPyro's `MCMC`, chunk by chunk: one program draws a chunk of all chains while the host stores
    the one before, so that device memory holds two chunks, however long the run is. With a `store`
    the draws go to disk with all that the chains go on from: the same call of `run`, in another
    process, goes on where the last one was killed, and ends with the same draws, bit for bit.

    :param kernel: any kernel with NumPyro's protocol. It is copied: its own state is left alone.
    :param num_warmup: steps of warmup.
    :param num_samples: steps after it, of which each `thinning`-th is a draw. A larger number than
        a finished store has extends it.
    :param num_chains: chains, each with a key of its own.
    :param thinning: steps for each draw.
    :param store: a path, whose folder becomes a Zarr store; an object with the methods of
        :class:`~numpyro_scores.long_runs.stores.DrawStore`; or None for the memory of the host.
    :param chunk_size: the most draws of a chunk. By default as many as take about two seconds, at
        most 10,000 and 16 MiB. The draws do not depend on it.
    :param chain_batch_size: chains that are drawn at a time; all by default.
    :param mesh: a `jax.sharding.Mesh` whose devices share the chains. Those of several processes
        (`jax.distributed`) draw one run into one store, each process its own chains.
    :param keep: names of the sites to store, or a function of one draw (a dict of its sites) that
        returns what is stored of it. Means and variances of all sites are in `moments` anyway.
    :param keep_warmup: whether the draws of warmup are stored as well, each `thinning`-th step
        counted from its end, as `MCMC.warmup(..., collect_warmup=True)` has them: ArviZ's groups
        `warmup_posterior` and `warmup_sample_stats`. Nothing else looks at them.
    :param until: a rule of :func:`~numpyro_scores.until` that stops the run early.
    :param progress_bar: whether to show how far it is.
    :raises ValueError: for counts that are none, or a mesh that does not divide the chains.
    """

    def __init__(
        self,
        kernel: MCMCKernel,
        *,
        num_warmup: int,
        num_samples: int,
        num_chains: int = 1,
        thinning: int = 1,
        store: Any = None,
        chunk_size: int | None = None,
        chain_batch_size: int | None = None,
        mesh: Any = None,
        keep: Sequence[str] | Callable[[Any], Any] | None = None,
        keep_warmup: bool = False,
        until: Until | None = None,
        progress_bar: bool = True,
    ):
        check_kernel(kernel)
        check_settings(num_chains, thinning, chunk_size, chain_batch_size, keep_warmup)
        check_rule(until, num_chains)
        super().__init__(
            copy.copy(kernel),
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            thinning=thinning,
            chain_method="vectorized",
            progress_bar=progress_bar,
        )
        self._kernel, self._store_given, self._until = kernel, store, until
        self._chunk_size_given, self._mesh, self._keep = chunk_size, mesh, keep
        self._keep_warmup = keep_warmup
        self._processes = processes_of(mesh, num_chains)
        self._batch_size = chain_batch_size
        batch = min(chain_batch_size or num_chains, num_chains)
        if mesh is not None and batch % mesh.size:
            raise ValueError(
                f"{batch} chains at a time do not divide evenly among {mesh.size} devices: choose "
                "num_chains (or chain_batch_size) as a multiple of them."
            )

    _worst: Convergence | None = None

    @property
    def _wanted(self) -> Wanted:
        num_draws = self.num_samples // self.thinning
        return Wanted(self.num_warmup, num_draws, self.thinning, self._keep_warmup)

    def run(
        self,
        rng_key: Array,
        *args: Any,
        extra_fields: Sequence[str] = (),
        init_params: Any = None,
        **kwargs: Any,
    ) -> None:
        """
        Warm up and draw; or go on with what the store has of this run. The first Ctrl-C lets the
        chunks in flight finish, stores them and returns; the second is an exception.

        :param rng_key: one key, of which each chain gets its own, or a key for each chain.
        :param args: arguments of the model.
        :param extra_fields: of the kernel's state, to be kept beside those that it keeps anyway;
            `"~z.site"` leaves out a site.
        :param init_params: where to start; with several chains, with a leading axis of them.
        :param kwargs: arguments of the model by name.
        :raises ValueError: if the store is that of another run, in words.
        :raises RuntimeError: if another process writes the store.
        """
        keys = chain_keys(rng_key, self.num_chains)
        params = chain_params(init_params, self.num_chains)
        self._args, self._kwargs, self._num_datasets = args, kwargs, None
        self._go(keys, params, (args, kwargs), extra_fields, init_params)

    def run_many(
        self,
        rng_key: Array,
        *args: Any,
        axis: int = 0,
        extra_fields: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """
        As :meth:`run`, for many data sets: a posterior for each entry along an axis of the
        arguments, all drawn by one program, `chain_batch_size` chains at a time. Draws have shape
        `(chains, draws, datasets, ...)`, and the store a dimension `dataset`.

        :param rng_key: one key.
        :param args: arguments of the model; every array among them has the axis.
        :param axis: where in the arrays the data sets lie.
        :param extra_fields: as of :meth:`run`.
        :param kwargs: arguments of the model by name, likewise.
        :raises ValueError: if the arrays do not agree in the number of data sets.
        """
        check_key("StoredMCMC.run_many", rng_key)
        if self._mesh is not None:
            raise ValueError("run_many draws on one device: leave out mesh.")
        data, number = data_sets((args, kwargs), axis)
        keys = random.split(rng_key, (number, self.num_chains))
        self._args, self._kwargs = jax.tree.map(lambda x: x[0] if is_array(x) else x, data)
        self._num_datasets = number
        self._go(keys, None, data, extra_fields, None)

    def _go(
        self, keys: Array, params: Any, data: Any, extra_fields: Sequence[str], init_params: Any
    ) -> None:
        self._store.close()
        self._store = store_of(self._store_given, self._processes)
        self._worst = None
        setup = Setup(
            self._kernel,
            self._wanted,
            self.num_chains,
            self._num_datasets,
            fields_of(self._sample_field, self._default_fields, extra_fields),
            self._keep,
            self._chunk_size_given,
            self._batch_size,
            self._processes,
        )
        # One of several processes that left while they plan would let the others wait for it.
        interrupts = Interrupts()
        with interrupts if self._processes.number > 1 else nullcontext():
            plan = self._processes.together(lambda: plan_of(setup, keys, params, data, init_params))
            self.sampler, self._names, self._site_tree = plan.kernel, plan.names, plan.site_tree
            try:
                self._draw(plan, interrupts)
            finally:
                self._store.close()

    def _draw(self, plan: Plan, interrupts: Interrupts) -> None:
        """Start, or go on, until all draws are there."""
        processes, store = self._processes, self._store
        checkpoint = processes.first_then_others(store.load)
        if checkpoint is not None:
            processes.together(lambda: check_same(store, checkpoint.record["run"], plan.identity))
        states = processes.together(
            lambda: [plan.programs.start(b.keys, b.params, b.arrays) for b in plan.batches]
        )
        progress = Progress(plan.identity, plan.sizes, plan.lanes, states, processes)
        if checkpoint is not None:
            progress.restore(checkpoint)
            states = [
                with_keys(there, like) for there, like in zip(progress.states, states, strict=True)
            ]
        progress.share()
        if checkpoint is None:
            check_states(type(self.sampler).__name__, progress.state)
            with in_words(self._store, progress):
                processes.first_then_others(lambda: self._create(plan, progress))
        self._progress = progress
        # A killed process may have died between a commit and a look.
        if progress.num_draws and self._until is not None:
            self._look(progress)
        if not progress.is_enough:
            self._run(plan, progress, states, interrupts)
        self._set_last_state(progress, states[0])

    def _create(self, plan: Plan, progress: Progress) -> None:
        """Make a new store; or, by the other processes, see that it is that of their run."""
        if not self._processes.is_first:
            made = self._store.load()
            assert made is not None
            check_same(self._store, made.record["run"], plan.identity)
            return
        groups = {}
        if not isinstance(self._store, MemoryStore):
            keeps_warmup = self._wanted.num_warmup_draws > 0
            groups = groups_of(self, plan.names, plan.point, plan.sizes, keeps_warmup)
        self._store.create(groups, plan.chunk_size, progress.checkpoint())

    def _run(
        self, plan: Plan, progress: Progress, states: list[Any], interrupts: Interrupts
    ) -> None:
        runner = Runner(
            plan,
            progress,
            states,
            plan.names,
            self._store,
            self._wanted,
            self._processes,
            interrupts,
            fixed=self._chunk_size_given is not None,
            progress_bar=self.progress_bar,
            after_commit=self._look,
            attributes=self._attributes,
        )
        with in_words(self._store, progress):
            runner.run()
        num_draws = self._wanted.num_draws
        if runner.is_interrupted and progress.num_draws < num_draws:
            warnings.warn(
                f"Interrupted: {progress.num_draws:,} of {num_draws:,} draws are there, of each "
                "chain.",
                UserWarning,
                stacklevel=5,
            )

    def _set_last_state(self, progress: Progress, like: Any) -> None:
        state = with_keys(progress.state, like)
        self._last_state = jax.tree.map(lambda x: x[0], state) if self.num_chains == 1 else state

    def _attributes(self, progress: Progress) -> dict[str, dict[str, Any]]:
        """What the groups say of the run."""
        if isinstance(self._store, MemoryStore) or self._num_datasets is not None:
            return {}
        parts = parts_of(self.sampler, progress.state, 2)
        record = Record(type(self.sampler).__name__, parts)
        return {"posterior": {ATTRIBUTE: written(record)}}

    def _look(self, progress: Progress) -> str:
        """What the bar says; and whether it is enough."""
        text = f"divergences={progress.num_divergences}"
        wants_numbers = self.progress_bar or self._until is not None
        if wants_numbers and progress.num_draws >= max(FEWEST_DRAWS, progress.next_look):
            progress.next_look = int(GROWTH * progress.num_draws) + 1
            self._worst = self.convergence(worst=WORST)
            if self._until is not None and self._until.holds(self._worst):
                progress.is_enough = self._until.holds(self.convergence())
        if self._worst is not None and len(self._worst.names):
            r_hat, ess = self._worst.r_hat.max(), self._worst.bulk_ess.min()
            text += f", r_hat={r_hat:.3f}, bulk_ess={ess:.0f}"
        return text

    def warmup(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(
            "StoredMCMC warms up in run: call run alone. StoredMCMC(..., keep_warmup=True) keeps "
            "the draws of warmup."
        )
