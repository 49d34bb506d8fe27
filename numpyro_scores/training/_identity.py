# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Words for what a module, an object or arrays are: the same in every process that makes them."""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from numbers import Number
from types import ModuleType
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from numpyro.distributions import Distribution

from numpyro_scores._callables import as_pytree
from numpyro_scores._words import is_key, nameless, to_numpy
from numpyro_scores.training._pytrees import Path, children

# What `Module.train` and `Module.eval` set: no part of what a module is.
MODES = {"deterministic", "use_running_average"}


def structure(tree: Any) -> dict[str, str]:
    """Names, shapes and dtypes of the leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {name_of(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def name_of(path: Path) -> str:
    """
    The name of a leaf, `layers.0.kernel`, of the keys of JAX or words on its path. No two paths
    have one name: a dot within a key is written with a backslash.
    """
    parts = [
        jax.tree_util.keystr((key,), simple=True) if _is_jax_key(key) else str(key) for key in path
    ]
    # A variable of Flax is a node whose one child is its value.
    if len(parts) > 1 and parts[-1] == "value" and isinstance(path[-1], jax.tree_util.GetAttrKey):
        parts.pop()
    return ".".join(part.replace("\\", r"\\").replace(".", r"\.") for part in parts)


def _is_jax_key(key: Any) -> bool:
    return type(key).__module__.startswith("jax")


def fingerprint(tree: Any) -> str:
    """A word for what arrays hold."""
    digest = hashlib.sha256(str(structure(tree)).encode())
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(to_numpy(leaf)).data)
    return digest.hexdigest()[:16]


def configuration(module: Any) -> dict[str, str]:
    """
    What a module is besides its arrays. Of Flax's own layers nothing is said: they are as the
    module that made them, and its arrays, say.
    """
    if isinstance(module, nnx.Module):
        return _configuration_of_flax(module)
    return _configuration_of_pytree((), module)


def _configuration_of_flax(module: nnx.Module) -> dict[str, str]:
    found = {}
    for path, part in nnx.iter_modules(module):
        if type(part).__module__.partition(".")[0] == "flax":
            continue
        prefix = ".".join(map(str, path))
        found[prefix] = type(part).__qualname__
        for name, value in vars(part).items():
            holds_arrays = any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value))
            is_part = isinstance(value, nnx.Module | nnx.List | nnx.Variable)
            if not (name.startswith("_") or holds_arrays or is_part or name in MODES):
                found[f"{prefix}.{name}".lstrip(".")] = nameless(value)
    return found


def _configuration_of_pytree(path: Path, tree: Any) -> dict[str, str]:
    name = name_of(path)
    if isinstance(tree, nnx.Module):
        return {f"{name}.{key}".strip("."): v for key, v in _configuration_of_flax(tree).items()}
    below = children(tree)
    if below is None:
        is_option = isinstance(tree, bool | int | str)
        return {name: nameless(tree)} if is_option or callable(tree) else {}
    if not _holds_named(tree):
        pytree = as_pytree("module", tree) if callable(tree) else tree
        return {name: nameless(jax.tree.structure(pytree))}
    if isinstance(tree, Distribution):
        # The fields of a distribution are a set: their order is another in each process.
        static = sorted(set(type(tree).gather_pytree_aux_fields()) - {"_validate_args"})
        held = {key: nameless(vars(tree).get(key)) for key in static}
        found = {name: type(tree).__qualname__, f"{name}.static".lstrip("."): str(held)}
    else:
        found = {name: _kind_of(tree)}
    for key, child in below[0]:
        found |= _configuration_of_pytree((*path, key), child)
    return found


def _holds_named(tree: Any) -> bool:
    """Whether a Flax module or a distribution is in it, whose own words are better than JAX's."""
    if isinstance(tree, nnx.Module | Distribution):
        return True
    below = children(tree)
    return below is not None and any(_holds_named(child) for _, child in below[0])


def description(value: Any) -> dict[str, str]:
    """
    What an objective or an optimizer is, by the name of each part: classes, fields, numbers and
    arrays, and what functions hold in their closures and defaults. What a function does behind its
    name, or reads from a global, isn't seen.
    """
    found: dict[str, str] = {}
    _describe((), value, found, set())
    return found


def _describe(path: Path, value: Any, found: dict[str, str], above: set[int]) -> None:
    name = name_of(path)
    if isinstance(value, Array | np.ndarray | np.generic):
        few = value.size <= 4 and not is_key(value)
        content = to_numpy(value).tolist() if few else fingerprint(value)
        found[name] = f"{value.dtype}{list(value.shape)} {content}"
    elif value is None or isinstance(value, str | bytes | Number | type):
        found[name] = nameless(value)
    elif id(value) not in above:
        found[name] = _kind_of(value)
        for key, part in _parts_of(value):
            _describe((*path, key), part, found, above | {id(value)})


def _kind_of(value: Any) -> str:
    named = getattr(value, "__wrapped__", value)
    named = named if hasattr(named, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _parts_of(value: Any) -> list[tuple[str, Any]]:
    """What an object is made of, with names that are the same in every process."""
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if hasattr(value, "__wrapped__"):
        return [("wrapped", value.__wrapped__)]
    if hasattr(value, "__func__"):  # a method
        return [("self", value.__self__), ("func", value.__func__)]
    if hasattr(value, "__code__"):
        return _held_by(value)
    if isinstance(value, Mapping):
        return sorted(((str(key), part) for key, part in value.items()), key=lambda entry: entry[0])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return [(str(i), part) for i, part in enumerate(value)]
    if is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    below = children(value)
    if below is not None:
        return below[0]
    if isinstance(value, ModuleType):
        return []
    held = getattr(value, "__dict__", {})
    return _unchanging((key, part) for key, part in held.items() if not key.startswith("_"))


def _held_by(function: Any) -> list[tuple[str, Any]]:
    """Defaults and closure of a function."""
    held = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            held.append((name, cell.cell_contents))
        except ValueError:  # not bound yet
            continue
    held += [(f"default {i}", part) for i, part in enumerate(function.__defaults__ or ())]
    held += (function.__kwdefaults__ or {}).items()
    return _unchanging(held)


def _unchanging(held: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Sorted; without lists and the like, in which a function notes what it has seen."""
    return sorted(
        ((name, part) for name, part in held if not isinstance(part, list | dict | set)),
        key=lambda entry: entry[0],
    )


def differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """A line for each entry of nested dicts that is another or only in one of them."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in {**found, **wanted}:
            yield from differences(found.get(key), wanted.get(key), f"{name} {key}".strip())
    elif found != wanted:
        # Of nested ones the head says enough.
        found, wanted = (x.get("", x) if isinstance(x, dict) else x for x in (found, wanted))
        yield f"  {name}: {found!r} there, {wanted!r} now"
