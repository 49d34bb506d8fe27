# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The weights of a module in a file: safetensors, which holds arrays and no code."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from numpyro_scores._callables import as_pytree
from numpyro_scores.training._identity import configuration, differences, name_of
from numpyro_scores.training._pytrees import map_arrays

# The entry of the metadata that says what module the weights are of.
ENTRY = "numpyro_scores.module"
FLOATS_OF_8_BITS = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


def save_weights(path: Any, module: Any) -> None:
    """
    Write the arrays of a module to a safetensors file, its configuration (classes, sizes, options)
    to the metadata. The file is there as a whole or not at all.

    :param path: the file; one that is there is replaced.
    :param module: a Flax nnx module or any other callable pytree, as `fit` returns them.
    :raises OSError: if the file can't be written.
    :raises TypeError: if `path` is none, such as a module.
    :raises ValueError: if two arrays have one name.
    """
    path = _as_path("save_weights", path)
    named = {name: np.array(x, order="C") for name, x in _named_arrays(module).items()}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(named, part, metadata={ENTRY: json.dumps(configuration(module))})
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OSError(f"The weights can't be written to {str(path)!r}: {error}") from error


def load_weights(path: Any, module: Any) -> Any:
    """
    A module with the weights of a file. Nothing of the file is executed.

    :param path: a file that :func:`save_weights` wrote.
    :param module: a module made as the one that was saved, with any weights; it isn't changed.
    :return: the module with the weights of the file.
    :raises FileNotFoundError: if there is no such file.
    :raises TypeError: if `path` is none, such as a module.
    :raises ValueError: if the file is damaged or of something else, or if the module's
        configuration, or the name, shape or dtype of an array, is another.
    """
    path = _as_path("load_weights", path)
    try:
        with safe_open(path, framework="numpy") as file:
            entry = (file.metadata() or {}).get(ENTRY)
            found = {name: _read(path, file, name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"{str(path)!r} can't be read as safetensors, it is damaged or something else: {error}"
        ) from error
    saved = _saved_configuration(path, entry)
    now = {"configuration": _public(configuration(module)), "arrays": _kinds(_named_arrays(module))}
    there = {"configuration": _public(saved), "arrays": _kinds(found)}
    other = list(differences(there, now))
    if other:
        raise ValueError(
            f"The weights in {str(path)!r} are of another module than this "
            f"{type(module).__name__}: make it as it was made then. It differs in\n"
            + "\n".join(other)
        )
    return _map_arrays(lambda path, _: jnp.asarray(found[name_of(path)]), module)


def _as_path(function: str, path: Any) -> Path:
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise TypeError(
        f"{function} takes the path of the file and then the module, {function}('prior.safetensors'"
        f", module), got {type(path).__name__} for the path."
    )


def _saved_configuration(path: Any, entry: str | None) -> dict[str, str]:
    if entry is None:
        raise ValueError(f"{str(path)!r} holds arrays, but not those of save_weights.")
    try:
        saved = json.loads(entry)
    except json.JSONDecodeError:
        saved = None
    if not isinstance(saved, dict):
        raise ValueError(
            f"{str(path)!r} has metadata {ENTRY!r} that save_weights did not write: {entry[:80]!r}."
        )
    return saved


def _public(words: dict[str, str]) -> dict[str, str]:
    """An underscore before the name of a class says who may use it, not what it is."""
    return {name: str(word).lstrip("_") for name, word in words.items()}


def _read(path: Any, file: Any, name: str) -> np.ndarray:
    dtype = FLOATS_OF_8_BITS.get(file.get_slice(name).get_dtype())
    if dtype is None:
        return file.get_tensor(name)
    # NumPy has no such type, so that safetensors gives no array: take the bytes.
    raw = dict(deserialize(Path(path).read_bytes()))[name]
    return np.frombuffer(raw["data"], jnp.dtype(dtype)).reshape(raw["shape"])


def _named_arrays(module: Any) -> dict[str, Any]:
    """
    :raises ValueError: if two arrays have one name.
    """
    named: dict[str, Any] = {}

    def note(path, array):
        name = name_of(path)
        if name in named:
            raise ValueError(
                f"Two arrays of {type(module).__name__} have the name {name!r}: rename one of the "
                "keys on the way to them."
            )
        named[name] = array
        return array

    _map_arrays(note, module)
    return named


def _kinds(named: dict[str, Any]) -> dict[str, str]:
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in named.items()}


def _map_arrays(f: Callable[[Any, Any], Any], module: Any) -> Any:
    """The module with `f(path, array)` for each of its arrays, random streams left out."""
    if not isinstance(module, nnx.Module):
        as_pytree("module", module)  # is it callable?
        return map_arrays(f, module)
    # Split, so that what two parts share is one array and stays shared.
    graphdef, streams, arrays = nnx.split(module, nnx.RngState, ...)
    flat = nnx.to_flat_state(arrays)
    values = {
        path: jax.tree_util.tree_map_with_path(
            lambda below, x, path=path: f((*path, *below), x), leaf
        )
        for path, leaf in flat
    }
    return nnx.merge(graphdef, streams, nnx.from_flat_state(values))
