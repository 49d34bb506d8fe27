# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Flax modules of a pytree: parameters, state and random streams apart, and together again."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, random

from numpyro_scores.training._pytrees import Path


class FlaxModules:
    """
    Flax modules that are split as one, so that what they share stays shared.

    - **params** - by path, the `nnx.Param` of the modules: what is trained.
    - **state** - every other variable but those of random streams, such as batch statistics:
      carried from step to step, as a module leaves it.

    :param modules: the modules, or variables.
    :param paths: where in the pytree each of them is.
    """

    def __init__(self, modules: Sequence[Any], paths: Sequence[Path]):
        self._paths = list(paths)
        self._graphdef, params, self._streams, self.state = nnx.split(
            tuple(modules), nnx.Param, nnx.RngState, ...
        )
        flat: list[tuple[Any, Any]] = list(nnx.to_flat_state(params))
        self.params = {(*self._paths[path[0]], *path[1:]): param for path, param in flat}
        self._indices = {(*self._paths[path[0]], *path[1:]): path for path, _ in flat}

    def merge(self, params: dict[Path, Any], state: Any, key: Array | None = None) -> tuple:
        """
        The modules anew. With a key they draw all their random numbers from it: under `jax.vmap`,
        too, where Flax's own streams, which count, would refuse; the points of a batch then share
        one dropout mask a step. Without one they are in evaluation mode.
        """
        flat = {self._indices[path]: params[path] for path in self._indices}
        # What is mutated must be made inside of the transformation that mutates it.
        state, streams = jax.tree.map(lambda x: x, (state, self._streams))
        modules = nnx.merge(self._graphdef, nnx.from_flat_state(flat), streams, state)
        for i, module in enumerate(modules):
            if key is not None:
                _draw_from(random.fold_in(key, i), module)
            elif isinstance(module, nnx.Module):
                module.eval()
        return modules

    def state_of(self, modules: tuple) -> Any:
        """The state after a step: the variables that there were before."""
        after = dict(nnx.to_flat_state(nnx.split(modules, nnx.Param, nnx.RngState, ...)[3]))
        before = dict(nnx.to_flat_state(self.state))
        return nnx.from_flat_state({path: after[path] for path in before})


def nested(flat: dict[Path, Any], is_flax: bool) -> Any:
    """Parameters by path as nested dicts, those of a Flax module as it has them itself."""
    return nnx.from_flat_state(flat) if is_flax else unflatten_dict(flat)


def by_path(params: Any) -> dict[Path, Any]:
    """The inverse of :func:`nested`."""
    if isinstance(params, nnx.State):
        return dict(nnx.to_flat_state(params))
    return flatten_dict(params)


class _OneKey(nnx.RngStream):
    """A stream that counts its calls outside of its variables: it is never mutated."""

    calls: Any

    def __call__(self) -> Array:
        return random.fold_in(self.key[...], next(self.calls))


def _draw_from(key: Array, module: Any) -> None:
    streams = (node for _, node in nnx.iter_graph(module) if type(node) is nnx.RngStream)
    for i, stream in enumerate(streams):
        fresh = random.fold_in(key, i)
        shape = stream.key.shape
        stream.key[...] = random.split(fresh, shape) if shape else fresh
        stream.__class__ = _OneKey
        stream.calls = itertools.count()
