# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Draws from an unnormalised density by short chains of a kernel that the user chooses."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, random

from numpyro_scores._compile import compiled
from numpyro_scores._validation import as_sample_shape, check_key


class Sampler(partial):
    """A `functools.partial` that equals others of the same function and arguments, for jit."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sampler) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def _parts(self) -> tuple:
        return self.func, self.args, frozenset(self.keywords.items())


def as_sampler(sampler: Callable, example: str) -> Sampler:
    """A function that makes a kernel, hashable; raise unless it can be."""
    if not callable(sampler):
        raise TypeError(
            f"sampler must make a kernel, such as numpyro_scores.{example} or "
            f"functools.partial(numpyro_scores.{example}, num_steps=500), got {sampler!r}."
        )
    sampler = Sampler(sampler)
    try:
        hash(sampler)
    except TypeError as error:
        raise TypeError(
            f"The arguments of sampler must be hashable, numbers in place of arrays: {error}."
        ) from error
    return sampler


def checked_kernel(kernel: Any) -> Any:
    """Raise unless what a sampler has made is a kernel."""
    if not all(hasattr(kernel, name) for name in ("init", "sample", "sample_field")):
        raise TypeError(
            "sampler must return a kernel, with init, sample and sample_field of "
            f"numpyro.infer.mcmc.MCMCKernel, got {type(kernel).__name__}."
        )
    return kernel


def one_draw(kernel: Any, key: Array, start: Any = None) -> Any:
    """Where one draw of a kernel without warmup ends."""
    state = kernel.sample(kernel.init(key, 0, start, (), {}), (), {})
    return getattr(state, kernel.sample_field)


def short_runs(d: Any, key: Array | None, sample_shape: tuple[int, ...]) -> Array:
    """Independent points of `d._short_run(key)`."""
    key = check_key(f"{type(d).__name__}.sample", key)
    sample_shape = as_sample_shape(sample_shape)
    draws = compiled(_short_runs, d, key, num_draws=math.prod(sample_shape))
    return draws.reshape(*sample_shape, *d.event_shape)


def _short_runs(d: Any, key: Array, num_draws: int) -> Array:
    return jax.vmap(d._short_run)(random.split(key, num_draws))
