# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The arguments of a run as the programs take them: a key, a start and data for each chain."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.long_runs.convergence import Until

# Of the draws of one chunk, and their number: what is in flight twice, and is lost by a kill.
CHUNK_BYTES = 2**24
MAX_CHUNK = 10_000


def chain_keys(rng_key: Array, num_chains: int) -> Array:
    """As NumPyro's `MCMC` splits them: a key for each chain, or the one of a lone chain."""
    if not is_prng_key(rng_key) and jnp.shape(rng_key)[:1] == (num_chains,):
        return rng_key
    check_key("StoredMCMC.run", rng_key)
    return random.split(rng_key, num_chains) if num_chains > 1 else rng_key[None]


def chain_params(init_params: Any, num_chains: int) -> Any:
    """Where the chains start, with a leading axis of them."""
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), init_params)
    if num_chains == 1:
        return jax.tree.map(lambda x: x[None], params)
    for x in jax.tree.leaves(params):
        if x.shape[:1] != (num_chains,):
            raise ValueError(
                f"init_params must have a leading axis of the {num_chains} chains, got shape "
                f"{x.shape}."
            )
    return params


def fields_of(
    sample_field: str, fields: Sequence[str], extra_fields: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields to collect besides the draws, and the sites not to."""
    if isinstance(extra_fields, str):
        raise ValueError(f"extra_fields takes a sequence of names: ({extra_fields!r},).")
    mark = f"~{sample_field}."
    every = dict.fromkeys([*fields, *extra_fields])
    removed = tuple(name.removeprefix(mark) for name in every if name.startswith(mark))
    collected = tuple(name for name in every if name != sample_field and not name.startswith(mark))
    return collected, removed


def default_chunk_size(draw: Any, num_lanes: int, num_draws: int) -> int:
    """As many draws as have 16 MiB."""
    size = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(draw))
    return max(1, min(CHUNK_BYTES // max(size * num_lanes, 1), MAX_CHUNK, num_draws))


def lanes_of(own: slice, batch_size: int) -> list[slice]:
    """
    Batches of one size. The last may overlap the one before it: what is drawn twice is the same.
    """
    last = own.stop - batch_size
    starts = [min(start, last) for start in range(own.start, own.stop, batch_size)]
    return [slice(start, start + batch_size) for start in starts]


def data_sets(data: Any, axis: int) -> tuple[Any, int]:
    """Data with the axis of the data sets first in each array, and how many there are."""
    given = [np.shape(x) for x in jax.tree.leaves(data) if is_array(x) and np.ndim(x)]
    if not isinstance(axis, int) or any(not -len(shape) <= axis < len(shape) for shape in given):
        raise ValueError(f"axis must be one that every array has, got {axis!r}; of shapes {given}.")
    data = jax.tree.map(
        lambda x: jnp.moveaxis(jnp.asarray(x), axis, 0) if is_array(x) and np.ndim(x) else x, data
    )
    shapes = [jnp.shape(x) for x in jax.tree.leaves(data) if is_array(x)]
    numbers = {shape[:1] for shape in shapes}
    if len(numbers) != 1 or () in numbers:
        raise ValueError(
            f"run_many wants arrays with as many data sets each along axis {axis}, got shapes "
            f"{shapes} (that axis first)."
        )
    return data, shapes[0][0]


def is_array(x: Any) -> bool:
    """Whether it may hold data, and not a setting."""
    return isinstance(x, jax.Array | np.ndarray)


def check_settings(
    num_chains: int,
    thinning: int,
    chunk_size: int | None,
    chain_batch_size: int | None,
    keep_warmup: bool,
) -> None:
    """Raise unless counts are counts, where there are any, and a flag is one."""
    for name, number in (("num_chains", num_chains), ("thinning", thinning)):
        check_count(name, number)
    for name, size in (("chunk_size", chunk_size), ("chain_batch_size", chain_batch_size)):
        if size is not None:
            check_count(name, size)
    if not isinstance(keep_warmup, bool):
        raise TypeError(
            f"keep_warmup must be True or False, got {keep_warmup!r}: of warmup the same sites are "
            "kept as of the draws (keep=)."
        )


def check_rule(until: Any, num_chains: int) -> None:
    """Raise unless it is None or a rule that so many chains can fulfil."""
    if not (until is None or isinstance(until, Until)):
        raise TypeError(f"until must be a rule, as until=ns.until(r_hat=1.01), got {until!r}.")
    if until is not None and until.r_hat is not None and num_chains < 2:
        raise ValueError(
            "R-hat compares chains, and there is one: num_chains=2 or more, or "
            "until=ns.until(r_hat=None, bulk_ess=400)."
        )


def check_kernel(kernel: Any) -> None:
    """Raise unless it is a kernel whose chains know nothing of each other."""
    if not isinstance(kernel, MCMCKernel):
        raise TypeError(
            f"StoredMCMC takes a kernel of NumPyro's MCMC, got {type(kernel).__name__}"
            f"{' (the class; call it with a model)' if isinstance(kernel, type) else ''}."
        )
    if kernel.is_ensemble_kernel:
        raise ValueError(
            f"{type(kernel).__name__} moves its chains by one another, and StoredMCMC draws "
            "each by itself: use numpyro.infer.MCMC."
        )
