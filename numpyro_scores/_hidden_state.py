# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a callable can reach besides its arguments and the leaves of its pytree.

A compiled program holds what was reached when it was traced as constants. It may be kept only if
nothing of that can change in silence: numbers and other functions can be compared, while an array,
a module or any other object that a function finds in a closure or as a global may be changed in
place or trained.
"""

import builtins
import dataclasses
import dis
import enum
import sys
import types
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from numpyro_scores._callable_pytrees import Static

# Their own code is taken to depend on its arguments alone.
LIBRARIES = frozenset(
    "abc builtins cmath collections dataclasses diffrax einops enum equinox flax functools "
    "itertools jax jaxlib jaxtyping math ml_dtypes numbers numpy numpyro numpyro_scores operator "
    "optax scipy types typing warnings".split()
)
CONSTANTS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range)
REACHES_ANYTHING = frozenset("__import__ compile eval exec globals input locals open vars".split())
# Their instances hold a state that can't be seen.
WITHOUT_ATTRIBUTES = ("builtins", "collections", "itertools", "numpy.random")
# Not part of what an instance does once it is made.
NOT_CALLED = frozenset(("__init__", "__new__", "__post_init__", "__init_subclass__"))


class Opaque(Exception):
    """It reaches something that may change without a trace."""


def reached(*roots: Any) -> tuple:
    """
    The numbers, functions and classes that the code of callables and structures reaches: as long as
    they are equal, a program that was compiled stays right.

    :raises Opaque: if they reach anything else.
    """
    search = _Search()
    for root in roots:
        search.visit(root)
    return tuple(search.found)


class _Same:
    """An object that equals no other, of whatever class."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _Search:
    def __init__(self) -> None:
        self.found: list[Any] = []
        # What was met, and as which: the objects stay alive, or an address would be used again.
        self._met: dict[int, tuple[int, Any]] = {}

    def visit(self, value: Any) -> None:
        if isinstance(value, CONSTANTS):
            self.found.append((type(value), value))
            return
        if _is_value(value):
            # Equal objects are one, whichever of them a structure holds.
            self.visit(type(value))
            self._visit_all(getattr(value, f.name, None) for f in dataclasses.fields(value))
            return
        is_new = id(value) not in self._met
        number, _ = self._met.setdefault(id(value), (len(self._met), value))
        self.found.append(number)
        if is_new:
            self._visit_new(value)

    def _visit_new(self, value: Any) -> None:
        if isinstance(value, jax.tree_util.PyTreeDef):
            self._visit_all(_parts_with_code(value))
        elif isinstance(value, tuple | list | set | frozenset):
            self.found.append((type(value), len(value)))
            self._visit_all(value)
        elif isinstance(value, Mapping):
            self._visit_all((tuple(value.keys()), tuple(value.values())))
        elif isinstance(value, partial):
            self._visit_all((type(value), value.func, value.args, value.keywords))
        elif isinstance(value, types.ModuleType):
            _require(_is_library(value.__name__))
            self.found.append(value)
        elif isinstance(value, type):
            self._visit_class(value)
        elif isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, types.MethodType):
            self._visit_all((value.__func__, value.__self__))
        elif isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            _require(owner is None or isinstance(owner, types.ModuleType | type))
            self.found.append(value)
        elif isinstance(value, np.dtype | np.ufunc | enum.Enum):
            self.found.append(value)
        else:
            self._visit_instance(value)

    def _visit_all(self, values: Any) -> None:
        for value in values:
            self.visit(value)

    def _visit_function(self, function: types.FunctionType) -> None:
        self.found.append(function)
        if _is_of_library(function):
            return
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                raise Opaque from None
            self.visit(content)
        scope = function.__globals__
        if _is_library(scope.get("__name__", "")):
            return
        self._visit_all((function.__defaults__, function.__kwdefaults__, vars(function)))
        for name in _global_names(function.__code__):
            if name in scope:
                self.visit(scope[name])
            else:
                _require(hasattr(builtins, name) and name not in REACHES_ANYTHING)
                self.found.append(name)

    def _visit_class(self, cls: type) -> None:
        self.found.append(cls)
        if _is_library(cls.__module__):
            return
        for base in cls.__mro__:
            if not _is_library(base.__module__):
                for name, value in vars(base).items():
                    self._visit_attribute(name, value)

    def _visit_attribute(self, name: str, value: Any) -> None:
        is_function = isinstance(value, types.FunctionType)
        if name in NOT_CALLED or (name.startswith("__") and name != "__call__" and not is_function):
            return
        if name.startswith(("_abc_", "_pytree__")) or isinstance(
            value, types.MemberDescriptorType | types.GetSetDescriptorType
        ):
            return
        self.found.append(name)
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        self.visit(value.fget if isinstance(value, property) else value)

    def _visit_instance(self, value: Any) -> None:
        cls = type(value)
        self.found.append(cls)
        # Fields that cannot be compared may change.
        _require(not dataclasses.is_dataclass(cls) or _is_library(cls.__module__))
        _require(_is_library(cls.__module__) and not hasattr(value, "dtype"))
        _require(cls is object or not cls.__module__.startswith(WITHOUT_ATTRIBUTES))
        if callable(value):
            # A jitted or otherwise wrapped function may be anybody's, and says whose it is.
            _require(_is_library(getattr(value, "__module__", None) or cls.__module__))
            self.found.append(_Same(value))
        wrapped = getattr(value, "__wrapped__", None)
        self.visit(dict(_attributes(value)) if wrapped is None else wrapped)


def _is_value(value: Any) -> bool:
    """Whether it is compared by its fields; these are not changed, or that would be wrong."""
    cls = type(value)
    return dataclasses.is_dataclass(cls) and cls.__hash__ not in (None, object.__hash__)


class _Passing(Exception):
    """Parts that must not outlive the call, as a function that holds weights or traced values."""


def _parts_with_code(treedef: jax.tree_util.PyTreeDef) -> tuple:
    """What of a structure can reach anything; the rest tells itself by the structure's equality."""
    try:
        return _lasting_parts(treedef)
    except _Passing as passing:
        return passing.args


@lru_cache(maxsize=512)
def _lasting_parts(treedef: jax.tree_util.PyTreeDef) -> tuple:
    """
    The parts of a structure that hold nothing, so that they may be kept: what is raised is not.

    :raises _Passing: with the parts, if one is neither a function without a closure nor a setting.
    """
    found: dict[int, Any] = {}

    def visit(part: Any) -> None:
        if isinstance(part, jax.tree_util.PyTreeDef):
            visit(part.node_data())
            visit(part.children())
        elif isinstance(part, tuple | list):
            for entry in part:
                visit(entry)
        elif isinstance(part, Static):
            visit(part.value)
        elif isinstance(part, Mapping):
            visit(list(part.values()))
        elif not isinstance(part, (*CONSTANTS, np.dtype)) and not (
            isinstance(part, type) and _is_library(part.__module__)
        ):
            found[id(part)] = part

    visit(treedef)
    parts = tuple(found.values())
    if all(_holds_nothing(part) for part in parts):
        return parts
    raise _Passing(*parts)


def _holds_nothing(part: Any) -> bool:
    if isinstance(part, types.FunctionType):
        if _is_of_library(part):
            return True
        defaults = (
            None if _is_library(part.__module__) else part.__defaults__ or part.__kwdefaults__
        )
        return not (part.__closure__ or defaults)
    return _is_value(part) and _is_library(type(part).__module__)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__weakref__", "__dict__") and hasattr(value, name):
                yield name, getattr(value, name)


def _require(condition: bool) -> None:
    if not condition:
        raise Opaque


def _is_library(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in LIBRARIES


def _is_of_library(function: types.FunctionType) -> bool:
    """Whether a library has it under its own name: what a decorator keeps is the library's too."""
    module = sys.modules.get(function.__module__ or "")
    is_named = getattr(module, function.__qualname__, None) is function
    return is_named and _is_library(function.__module__)


@lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """
    The names of globals and builtins that code reads, in the order in which it does.

    :raises Opaque: if it writes one, or imports what is no library.
    """
    names: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_NAME" or "GLOBAL" in instruction.opname:
            _require(instruction.opname.startswith("LOAD"))
            names[instruction.argval] = None
        elif instruction.opname == "IMPORT_NAME":
            _require(_is_library(instruction.argval))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(_global_names(constant)))
    return tuple(names)
