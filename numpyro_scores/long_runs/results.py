# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The results of a run whose draws are in a store, with the face of NumPyro's `MCMC`."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpyro.infer import MCMC

from numpyro_scores.long_runs.checkpoints import Progress
from numpyro_scores.long_runs.convergence import Convergence, convergence_of, worst_elements
from numpyro_scores.long_runs.names import Names
from numpyro_scores.long_runs.stores import WARMUP, DrawStore, MemoryStore
from numpyro_scores.long_runs.thinned import thinned, thinning_for


class StoredResults(MCMC):
    """What can be asked of a run; a subclass makes one."""

    _keep: Any = None
    _names: Names | None = None
    _progress: Progress | None = None
    _num_datasets: int | None = None
    # What is read in place of the store, and the words for it.
    _few: dict[tuple[str, str], np.ndarray] | None = None
    _thinned = ""
    # The structure of what `moments` are about.
    _site_tree: Any = None

    def __init__(self, kernel: Any, **settings: Any):
        super().__init__(kernel, **settings)
        self._store: DrawStore = MemoryStore()

    @property
    def num_draws(self) -> int:
        """Draws of each chain that are stored."""
        return 0 if self._progress is None else self._progress.num_draws

    def get_samples(self, group_by_chain: bool = False, *, warmup: bool = False) -> Any:
        """
        All draws in memory.

        :param group_by_chain: whether to have shape `(chains, draws, ...)`, not `(n, ...)`.
        :param warmup: whether to have those of warmup instead, of a run with `keep_warmup=True`.
        """
        names = self._names_of_run() if not warmup else self._names_of_warmup()
        return names.samples(self._reader(group_by_chain), WARMUP if warmup else "")

    def get_extra_fields(
        self, group_by_chain: bool = False, *, warmup: bool = False
    ) -> dict[str, Any]:
        """The extra fields of all draws, likewise; of keys the numbers."""
        names = self._names_of_run() if not warmup else self._names_of_warmup()
        return names.fields(self._reader(group_by_chain), WARMUP if warmup else "")

    @property
    def _states(self) -> dict[str, Any] | None:
        """What `print_summary` reads."""
        if self._names is None:
            return None
        return {self._sample_field: self.get_samples(True), **self.get_extra_fields(True)}

    @_states.setter
    def _states(self, states: Any) -> None:
        """The draws are in the store."""

    def open(self) -> Any:
        """The store as an `xarray.DataTree`, read when it is needed."""
        return self._store.open()

    def _names_of_run(self) -> Names:
        if self._names is None or not self.num_draws:
            raise ValueError("There are no draws yet: call run(key, ...) first.")
        return self._names

    def _names_of_warmup(self) -> Names:
        if self._names is None:
            return self._names_of_run()
        if not self._num_warmup_draws:
            raise ValueError(
                "No draws of warmup are stored: StoredMCMC(..., keep_warmup=True) keeps each "
                "thinning-th step of it."
            )
        return self._names

    @property
    def _num_warmup_draws(self) -> int:
        """Draws of warmup of each chain that are stored."""
        return 0 if self._progress is None else self._progress.num_warmup_draws

    def _kept_warmup(self) -> tuple[Any, Any]:
        """Draws and extra fields of warmup by chain, for ArviZ; None of what is not kept."""
        if not self._num_warmup_draws:
            return None, None
        return self.get_samples(True, warmup=True), self.get_extra_fields(True, warmup=True)

    def _to_be_judged(self) -> "StoredResults":
        """This run, or one of every few of its draws, for a report in bounded memory."""
        names = self._names_of_run()
        if isinstance(self._store, MemoryStore):
            return self
        every = thinning_for(self._store.read, names.variables, self.num_draws)
        if every == 1:
            return self
        few = copy.copy(self)
        few._few = thinned(self._store.read, names.variables, self.num_draws, every)
        few._thinned = f", one of each {every:,} looked at"
        return few

    def _reader(self, group_by_chain: bool) -> Callable[[str, str], np.ndarray]:
        def read(group, name):
            if self._few is not None:
                x = self._few[group, name]
            else:
                is_warmup = group.startswith(WARMUP)
                stop = self._num_warmup_draws if is_warmup else self.num_draws
                x = self._store.read(group, name, 0, stop)
            return x if group_by_chain else x.reshape(-1, *x.shape[2:])

        return read

    def convergence(self, worst: int | None = None) -> Convergence:
        """
        R-hat and bulk ESS of what is stored so far, by ArviZ, from reads of bounded size.

        :param worst: only of so many elements, those whose chains differ most; all by default.
        """
        names, progress = self._names_of_run(), self._progress
        assert progress is not None
        many = () if self._num_datasets is None else (self._num_datasets,)
        shapes = {name: (*many, *shape) for name, shape in names.shapes.items()}
        elements = {name: np.arange(int(np.prod(shape))) for name, shape in shapes.items()}
        if worst is not None:
            kept = progress.all_moments[len(progress.all_moments) - len(names.order) :]
            elements = worst_elements(elements, kept, names.order, worst)

        def read(name, start, stop):
            return self._store.read("posterior", name, start, stop)

        return convergence_of(read, elements, shapes, progress.num_draws)

    @property
    def moments(self) -> tuple[Any, Any]:
        """
        Means and variances of all sites, over all draws so far, kept or not: two pytrees as a draw
        is, in float64.
        """
        self._names_of_run()
        assert self._progress is not None
        sites = self._progress.all_moments[: self._site_tree.num_leaves]
        pooled = [moments.pooled() for moments in sites]
        return tuple(self._site_tree.unflatten(part) for part in zip(*pooled, strict=True))

    def not_converged(self, r_hat: float | None = 1.01, bulk_ess: float = 400) -> np.ndarray:
        """
        After `run_many`, the indices of the data sets with an element that is not as good, or with
        none that has moved.

        :param r_hat: the largest R-hat; None for any, as a lone chain has none.
        :param bulk_ess: the smallest bulk ESS.
        """
        if self._num_datasets is None:
            raise ValueError("not_converged is about many data sets: call run_many.")
        if r_hat is not None and self.num_chains < 2:
            raise ValueError(
                "R-hat compares chains, and each data set has one: draw with num_chains=2 or more, "
                "or ask for not_converged(r_hat=None)."
            )
        found = self.convergence()
        good = found.bulk_ess >= bulk_ess
        if r_hat is not None:
            good &= found.r_hat <= r_hat
        # `x[dataset, ...]` is the name of an element.
        places = [name.rpartition("[")[2].rstrip("]").split(",")[0] for name in found.names]
        datasets = np.array(places, int)
        every = np.arange(self._num_datasets)
        return every[~np.isin(every, datasets) | np.isin(every, datasets[~good])]
