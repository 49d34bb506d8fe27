# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What `diagnose` looks at: the draws of a run, and what is known of its kernel and its model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpyro.infer import MCMC

from numpyro_scores.diagnostics.arviz.datasets import SAMPLE_DIMS, Arrays
from numpyro_scores.diagnostics.arviz.inference_data import collected, named_leaves, record_of
from numpyro_scores.diagnostics.arviz.versions import group_dataset, posterior_dataset
from numpyro_scores.diagnostics.report.parts import ATTRIBUTE, Part, Record, read
from numpyro_scores.infer.smc.driver import ParticleSampler


class Run(NamedTuple):
    """
    - **title** - what it is, in words.
    - **posterior** - draws by site, shape `(chains, draws, ...)`.
    - **fields** - the kernel's extra fields, by NumPyro's names, likewise.
    - **samples** - the draws as the kernel has them, a pytree.
    - **parts** - the kernel and those within it; none for ArviZ data that do not tell.
    - **model**, **args**, **kwargs** - the model and what it was called with; None if unknown.
    - **particles** - what a sampler of particles knows of its run; None for chains.
    - **sampler** - name of the kernel, or of the sampler of particles.
    """

    title: str
    posterior: Arrays
    fields: Arrays
    samples: Any
    parts: tuple[Part, ...]
    model: Callable | None
    args: tuple
    kwargs: Mapping[str, Any]
    particles: Mapping[str, Any] | None = None
    sampler: str = ""

    @property
    def num_chains(self) -> int:
        return len(next(iter(self.posterior.values())))

    @property
    def num_draws(self) -> int:
        return next(iter(self.posterior.values())).shape[1]


def run_of(
    result: Any, model: Callable | None, args: tuple, kwargs: Mapping[str, Any] | None
) -> Run:
    """The run of an `MCMC`, of a sampler of particles, or of ArviZ data."""
    kwargs = kwargs or {}
    if isinstance(result, MCMC | ParticleSampler):
        if model is not None or args or kwargs:
            raise ValueError(
                f"{'An' if isinstance(result, MCMC) else 'A'} {type(result).__name__} brings its "
                "model and arguments: give them with ArviZ data."
            )
        if hasattr(result, "_to_be_judged"):  # of draws on disk, as many as memory holds
            result = result._to_be_judged()
        samples, fields = collected(result)
        posterior, record = named_leaves(samples), record_of(result)
        # As a potential energy takes them, where there is no model.
        samples = result.get_samples(group_by_chain=True)
        model = getattr(getattr(result, "sampler", result), "model", None)
        args, kwargs = result._args, result._kwargs
    else:
        posterior, fields, record = _of_arviz(result)
        samples = posterior
    posterior = {name: values for name, values in posterior.items() if values.size}
    if not posterior:
        raise ValueError("There is nothing to diagnose: the posterior holds no draws.")
    num_chains, num_draws = next(iter(posterior.values())).shape[:2]
    size = sum(values[0, 0].size for values in posterior.values())
    if thinned := getattr(result, "_thinned", ""):
        num_draws = result.num_draws
    draws = f"{_count(num_chains, 'chain')} of {_count(num_draws, 'draw')}{thinned}"
    if record.particles is not None:
        draws = _count(num_draws, "particle")
    title = (
        f"{record.sampler}: {draws}, {_count(len(posterior), 'site')} of {_count(size, 'number')}"
    )
    return Run(
        title,
        posterior,
        fields,
        samples,
        record.parts,
        model,
        args,
        kwargs,
        record.particles,
        record.sampler,
    )


def _of_arviz(result: Any) -> tuple[Arrays, Arrays, Record]:
    dataset = posterior_dataset(result)
    stats = group_dataset(result, "sample_stats")
    fields = {} if stats is None else _arrays(stats)
    # Back to NumPyro's name.
    if "acceptance_rate" in fields:
        fields["accept_prob"] = fields.pop("acceptance_rate")
    record = read(dataset.attrs.get(ATTRIBUTE)) or Record(type(result).__name__)
    # The kernels' own divergences, `block_states_0_diverging`, by their paths.
    for part in record.parts:
        flat = part.path.replace(".", "_")
        for name in [name for name in fields if part.path and name.startswith(flat)]:
            fields[part.path + name.removeprefix(flat)] = fields.pop(name)
    return _arrays(dataset), fields, record


def finite_chains(posterior: Arrays) -> np.ndarray:
    """The indices of the chains all of whose draws are finite."""
    finite = [np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in posterior.values()]
    return np.flatnonzero(np.all(finite, axis=0))


def _arrays(dataset: Any) -> Arrays:
    """The variables of a group with chains and draws first."""
    return {
        str(name): variable.transpose(*SAMPLE_DIMS, ...).to_numpy()
        for name, variable in dataset.data_vars.items()
        if set(SAMPLE_DIMS) <= set(variable.dims)
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
