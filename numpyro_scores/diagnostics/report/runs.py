# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What `diagnose` looks at: the draws of a run, and what is known of its kernel and its model."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.infer import MCMC

from numpyro_scores.diagnostics.arviz.datasets import SAMPLE_DIMS, Arrays
from numpyro_scores.diagnostics.arviz.inference_data import collected, named_leaves
from numpyro_scores.diagnostics.arviz.versions import group_dataset, posterior_dataset


class Part(NamedTuple):
    """
    A kernel, or one within another: the replica on the target's rung, a block of Gibbs.

    - **path** - what its fields begin with: `""`, `"block_states.0."`.
    - **kernel** - the kernel.
    - **state** - its last state, with a leading axis for the chains.
    """

    path: str
    kernel: Any
    state: Any


class Run(NamedTuple):
    """
    - **title** - what it is, in words.
    - **posterior** - draws by site, shape `(chains, draws, ...)`.
    - **fields** - the kernel's extra fields, by NumPyro's names, likewise.
    - **samples** - the draws as the kernel has them, a pytree.
    - **parts** - the kernel and those within it; none for ArviZ data.
    - **model**, **args**, **kwargs** - the model and what it was called with; None if unknown.
    """

    title: str
    posterior: Arrays
    fields: Arrays
    samples: Any
    parts: tuple[Part, ...]
    model: Callable | None
    args: tuple
    kwargs: Mapping[str, Any]

    @property
    def num_chains(self) -> int:
        return len(next(iter(self.posterior.values())))

    @property
    def num_draws(self) -> int:
        return next(iter(self.posterior.values())).shape[1]


def run_of(
    result: Any, model: Callable | None, args: tuple, kwargs: Mapping[str, Any] | None
) -> Run:
    """The run of an `MCMC` or of ArviZ data."""
    kwargs = kwargs or {}
    if isinstance(result, MCMC):
        if model is not None or args or kwargs:
            raise ValueError("An MCMC brings its model and arguments: give them with ArviZ data.")
        samples, fields = collected(result)
        posterior = named_leaves(samples)
        # As a potential energy takes them, where there is no model.
        samples = result.get_samples(group_by_chain=True)
        state = result.last_state
        if result.num_chains == 1:
            state = jax.tree.map(lambda x: x[None], state)
        parts = tuple(_parts("", result.sampler, state))
        name, model = type(result.sampler).__name__, getattr(result.sampler, "model", None)
        args, kwargs = result._args, result._kwargs
    else:
        posterior = _arrays(posterior_dataset(result))
        stats = group_dataset(result, "sample_stats")
        fields = {} if stats is None else _arrays(stats)
        # Back to NumPyro's name.
        if "acceptance_rate" in fields:
            fields["accept_prob"] = fields.pop("acceptance_rate")
        samples, parts, name = posterior, (), type(result).__name__
    posterior = {name: values for name, values in posterior.items() if values.size}
    if not posterior:
        raise ValueError("There is nothing to diagnose: the posterior holds no draws.")
    num_chains, num_draws = next(iter(posterior.values())).shape[:2]
    size = sum(values[0, 0].size for values in posterior.values())
    title = (
        f"{name}: {_count(num_chains, 'chain')} of {_count(num_draws, 'draw')}, "
        f"{_count(len(posterior), 'site')} of {_count(size, 'number')}"
    )
    return Run(title, posterior, fields, samples, parts, model, args, kwargs)


def finite_chains(posterior: Arrays) -> np.ndarray:
    """The indices of the chains all of whose draws are finite."""
    finite = [np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in posterior.values()]
    return np.flatnonzero(np.all(finite, axis=0))


def _parts(path: str, kernel: Any, state: Any) -> Iterator[Part]:
    yield Part(path, kernel, state)
    if hasattr(state, "kernel_states"):
        # Each leaf has an axis of the rungs after that of the chains, all but a shared counter.
        cold = jax.tree.map(lambda x: x[:, 0] if x.ndim > 1 else x, state.kernel_states)
        yield from _parts(f"{path}kernel_states.", kernel._kernel, cold)
    blocks = getattr(kernel, "_kernels", ())
    for i, (block, of_block) in enumerate(
        zip(blocks, getattr(state, "block_states", ()), strict=False)
    ):
        yield from _parts(f"{path}block_states.{i}.", block, of_block)


def _arrays(dataset: Any) -> Arrays:
    """The variables of a group with chains and draws first."""
    return {
        str(name): variable.transpose(*SAMPLE_DIMS, ...).to_numpy()
        for name, variable in dataset.data_vars.items()
        if set(SAMPLE_DIMS) <= set(variable.dims)
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
