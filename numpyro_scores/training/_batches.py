# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Batches: drawn from points in memory, or cut from a stream of batches."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores._validation import check_batch
from numpyro_scores.training._placement import Placement

# Batches of a stream go to the device together, for many steps, but no more bytes than this.
MAX_STREAM_BYTES = 2**26


class PointsInMemory:
    """Batches of points that are all on the device, drawn with replacement."""

    def __init__(self, data: Any, batch_size: int, module: Any, placement: Placement):
        self.data = points_in_memory("data", data, module)
        size = len(jax.tree.leaves(self.data)[0])
        if batch_size > size:
            raise ValueError(
                f"batch_size must be at most the number of points, got batch_size={batch_size} and "
                f"data of shape {shape_of(self.data)}: give batch_size={size} or less."
            )
        self._batch_size, self._size, self._placement = batch_size, size, placement
        self.example = jax.tree.map(lambda x: x[:batch_size], self.data)
        self.device_data = placement.replicate(self.data)
        self.max_steps = sys.maxsize

    def skip(self, num_steps: int) -> None:
        """A batch is a function of the key of its step."""

    def next_batches(self, num_steps: int, capacity: int) -> Any:
        return self.device_data

    def batch(self, batches: Any, i: Any, key: Array) -> Any:
        """The batch of step `i` of those that `next_batches` gave; traced."""
        drawn = random.randint(key, (self._batch_size,), 0, self._size)
        return self._placement.shard(jax.tree.map(lambda x: x[drawn], batches))


class Stream:
    """Batches of `batch_size` points from an iterable of batches of any sizes."""

    def __init__(self, batches: Iterable, batch_size: int, module: Any, placement: Placement):
        self._placement = placement
        self._batches = _recut(batches, batch_size, module)
        self.example = self.data = next(self._batches)
        self._batches = itertools.chain([self.example], self._batches)
        num_bytes = sum(x.nbytes for x in jax.tree.leaves(self.example))
        self.max_steps = max(1, MAX_STREAM_BYTES // num_bytes)

    def skip(self, num_steps: int) -> None:
        next(itertools.islice(self._batches, num_steps, num_steps), None)

    def next_batches(self, num_steps: int, capacity: int) -> Any:
        """The batches of the next steps, one after the other, in an array of room for more."""
        room = jax.tree.map(lambda x: np.zeros((capacity, *x.shape), x.dtype), self.example)
        for i, batch in enumerate(itertools.islice(self._batches, num_steps)):
            for store, x in zip(jax.tree.leaves(room), jax.tree.leaves(batch), strict=True):
                store[i] = x
        return self._placement.shard_batches(room)

    def batch(self, batches: Any, i: Any, key: Array) -> Any:
        return self._placement.shard(jax.tree.map(lambda x: x[i], batches))


def _recut(batches: Iterable, batch_size: int, module: Any) -> Iterator[Any]:
    """
    The points of all batches one after the other, pass after pass, `batch_size` at a time: a short
    last batch weighs its points no more than others, and no shape is ever another.
    """
    left, expected, num_points = None, None, 0
    while True:
        before = num_points
        for number, batch in enumerate(batches):
            batch = check_points(f"batch {number}", batch, module, _on_host)
            shapes = jax.tree.map(lambda x: (x.shape[1:], str(x.dtype)), batch)
            if expected is not None and shapes != expected:
                raise ValueError(
                    f"All batches must have points of one shape and dtype, but batch {number} has "
                    f"{shapes} and the first one {expected}."
                )
            expected = shapes
            num_points += len(jax.tree.leaves(batch)[0])
            if left is not None:
                batch = jax.tree.map(lambda *parts: np.concatenate(parts), left, batch)
            size = len(jax.tree.leaves(batch)[0])
            for start in range(0, size - batch_size + 1, batch_size):
                yield jax.tree.map(lambda x, start=start: x[start : start + batch_size], batch)
            left = jax.tree.map(lambda x, size=size: x[size - size % batch_size :], batch)
        if num_points == before:
            raise ValueError(
                f"The batches of data ended after {num_points} points, but training needs "
                f"num_steps * batch_size of them, at {batch_size} a step. Give an iterable that "
                "can be read again and again (a list, an object with __iter__), or an iterator "
                "that doesn't end."
            )


def _on_host(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)


def is_stream(data: Any) -> bool:
    """Whether it is an iterable of batches; a list or tuple of rows is an array."""
    if isinstance(data, list | tuple):
        return not _holds_rows(data)
    return not hasattr(data, "shape") and not hasattr(data, "keys")


def _holds_rows(data: Any) -> bool:
    return len(data) > 0 and not isinstance(data[0], Mapping) and np.ndim(data[0]) < 2


def points_in_memory(name: str, data: Any, module: Any) -> Any:
    """
    Points as arrays, as :func:`check_points` gives them; of a list or tuple, whose entries are rows
    or batches, they are joined.
    """
    if not isinstance(data, list | tuple) or _holds_rows(data):
        return check_points(name, data, module)
    if not data:
        raise ValueError(f"{name} has no points: got {data!r}.")
    batches = [check_points(f"{name}[{i}]", batch, module) for i, batch in enumerate(data)]
    try:
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The batches of {name} must have points of one shape, got "
            f"{[shape_of(batch) for batch in batches]}."
        ) from error


def check_points(
    name: str, data: Any, module: Any, asarray: Callable[[Any], Any] = jnp.asarray
) -> Any:
    """
    Points as arrays: floats in the support of the module, of shape `(n, *event_shape)`. In a dict
    of arrays with one leading axis some may be integers, such as labels.
    """
    if isinstance(data, Mapping):
        arrays = {key: asarray(x) for key, x in data.items()}
        sizes = {jnp.shape(x)[:1] for x in arrays.values()}
        if len(sizes) != 1 or () in sizes:
            raise ValueError(
                f"The arrays of {name} must have one leading axis, the points, got shapes "
                f"{shape_of(arrays)}."
            )
        for key, x in arrays.items():
            _check_finite(f"{name}[{key!r}]", x)
        return arrays
    data = asarray(_as_array(name, data))
    check_batch(name, data)
    if getattr(module, "is_discrete", False):
        data = data.astype(jnp.result_type(float))
        outside = np.argwhere(~np.asarray(module.support(data)).reshape(len(data), -1).all(axis=1))
        if len(outside):
            raise ValueError(
                f"{name} must be in the support of {type(module).__name__}, {module.support}, but "
                f"{len(outside)} of {len(data)} points are not, the first at index "
                f"{int(outside[0, 0])}."
            )
    if not jnp.issubdtype(data.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floats, got {data.dtype}. Scale it: images of 256 grey levels, for "
            "instance, by data / 127.5 - 1."
        )
    _check_finite(name, data)
    return data


def _as_array(name: str, data: Any) -> Any:
    """A table or a list as NumPy sees it."""
    if isinstance(data, Array):
        return data
    try:
        array = np.asarray(data)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{name} must be an array of points of one shape: {error}") from error
    if not np.issubdtype(array.dtype, np.number) and array.dtype.kind not in "bV":
        raise TypeError(
            f"{name} must be an array of numbers of shape (n, *event_shape), a dict of such arrays "
            f"or an iterable of them, got {type(data).__name__}."
        )
    return array


def _check_finite(name: str, x: Any) -> None:
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        raise ValueError(
            f"{name} must be finite: {len(bad)} of {x.size} entries are NaN or infinite, the "
            f"first at index {tuple(map(int, bad[0]))}. Drop or fill these points."
        )


def shape_of(data: Any) -> Any:
    """The shape of an array, or those of a dict of arrays."""
    return {k: x.shape for k, x in data.items()} if isinstance(data, dict) else data.shape
