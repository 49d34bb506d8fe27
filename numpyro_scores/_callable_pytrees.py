# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Any callable as a pytree whose leaves are its arrays.

A distribution crosses ``jax.jit`` as a pytree. The weights of a callable must therefore be leaves,
and what is no array must not be one: a label, an activation, the number of layers.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax


def as_pytree(name: str, f: Any) -> Any:
    """
    Return `f` as a callable pytree whose leaves are arrays and floats: a module that is one already
    comes back itself, everything else as a :class:`CallablePytree` of it.

    :raises TypeError: if `f` can't be called.
    """
    if not callable(f):
        hint = ""
        if callable(getattr(f, "module", None)):
            hint = ": what was trained is its module, as in fitted.module"
        raise TypeError(f"{name} must be callable, got {type(f).__name__}{hint}.")
    leaves = jax.tree.leaves(f, is_leaf=_hides_leaves)
    return f if all(map(is_dynamic, leaves)) else CallablePytree(f)


def unwrapped(f: Any) -> Any:
    """What :func:`as_pytree` was given."""
    return f.wrapped if isinstance(f, CallablePytree) else f


def is_dynamic(leaf: Any) -> bool:
    """Whether a leaf is an array or a float, rather than something that steers Python code."""
    if isinstance(leaf, float | complex):
        return True
    # Tracers and `jax.ShapeDtypeStruct` have both; so has the class `numpy.float32`.
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, type)


_key = jax.tree_util.GetAttrKey


class Static:
    """A value that is part of a structure: equal to one of the same type that is equal to it."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or bool(self.value == other.value)

    def __hash__(self) -> int:
        try:
            return hash((type(self.value), self.value))
        except TypeError:  # a set, say
            return hash(type(self.value))

    def __repr__(self) -> str:
        return repr(self.value)


@jax.tree_util.register_pytree_with_keys_class
class CallablePytree:
    """
    A callable as a pytree: its leaves are the arrays and floats within it, wherever they are, in a
    module, in the arguments of a `functools.partial`, or in the object of a bound method.
    Everything else (functions, integers, strings) belongs to the structure.

    It holds the callable itself, so that a module that is trained in place has its new weights.
    """

    def __init__(self, f: Callable[..., Any]):
        self._f = f

    @property
    def wrapped(self) -> Any:
        """The callable."""
        if self._f is None:
            self._f = _closed(_joined(*self._flat))
            del self._flat
        return self._f

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.wrapped(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __repr__(self) -> str:
        return f"CallablePytree({name_of(self.wrapped)})"

    def __reduce__(self) -> tuple:
        # The structure of a pytree can't be pickled.
        return CallablePytree, (self.wrapped,)

    def tree_flatten_with_keys(self) -> tuple[list, tuple]:
        if self._f is None:
            children, aux = self._flat
            names = aux[-1]
            return list(zip(map(_key, names), children, strict=True)), aux
        found, treedef = jax.tree_util.tree_flatten_with_path(_opened(self._f))
        dynamic = [(path, leaf) for path, leaf in found if is_dynamic(leaf)]
        statics = tuple(None if is_dynamic(leaf) else Static(leaf) for _, leaf in found)
        names = tuple(jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in dynamic)
        leaves = [leaf for _, leaf in dynamic]
        return list(zip(map(_key, names), leaves, strict=True)), (treedef, statics, names)

    def tree_flatten(self) -> tuple[list, tuple]:
        children, aux = self.tree_flatten_with_keys()
        return [leaf for _, leaf in children], aux

    @classmethod
    def tree_unflatten(cls, aux: tuple, children: Any) -> "CallablePytree":
        # JAX may put anything in the place of a leaf: nothing is looked at before the call.
        tree: Any = object.__new__(cls)
        tree._f, tree._flat = None, (tuple(children), aux)
        return tree


def name_of(f: Any) -> str:
    """A short name of a callable, without what it holds."""
    if isinstance(f, CallablePytree):
        return name_of(f.wrapped)
    if isinstance(f, functools.partial):
        return f"partial({name_of(f.func)}, ...)"
    return getattr(f, "__qualname__", type(f).__qualname__)


def _joined(children: tuple, aux: tuple) -> Any:
    treedef, statics, _ = aux
    rest = iter(children)
    return treedef.unflatten([next(rest) if s is None else s.value for s in statics])


@jax.tree_util.register_pytree_with_keys_class
class _Parts:
    """What a partial or a bound method is made of."""

    def __init__(self, kind: type, parts: dict[str, Any]):
        self.kind, self.parts = kind, parts

    def tree_flatten_with_keys(self) -> tuple[list, tuple]:
        keys = map(_key, self.parts)
        return list(zip(keys, self.parts.values(), strict=True)), (self.kind, tuple(self.parts))

    @classmethod
    def tree_unflatten(cls, aux: tuple, children: Any) -> "_Parts":
        kind, names = aux
        return cls(kind, dict(zip(names, children, strict=True)))


def _hides_leaves(node: Any) -> bool:
    """Whether it may hold leaves where JAX doesn't look for them."""
    if isinstance(node, jax.tree_util.Partial):
        return not _is_leaf(_function_of(node))
    return isinstance(node, functools.partial) or (
        isinstance(node, types.MethodType) and not _is_leaf(node.__self__)
    )


def _is_leaf(node: Any) -> bool:
    return not _hides_leaves(node) and jax.tree_util.all_leaves([node])


def _function_of(partial: functools.partial) -> Any:
    # jax.tree_util.Partial puts a functools.partial that it is given into a box.
    fun = getattr(partial.func, "fun", None)
    return fun if isinstance(fun, functools.partial) else partial.func


def _opened(tree: Any) -> Any:
    if any(map(_hides_leaves, jax.tree.leaves(tree, is_leaf=_hides_leaves))):
        return jax.tree.map(_opened_node, tree, is_leaf=_hides_leaves)
    return tree


def _opened_node(node: Any) -> Any:
    if not _hides_leaves(node):
        return node
    if isinstance(node, types.MethodType):
        parts = {"function": node.__func__, "object": node.__self__}
        return _Parts(types.MethodType, {name: _opened(part) for name, part in parts.items()})
    parts = {"func": _function_of(node), "args": node.args, "keywords": node.keywords}
    return _Parts(type(node), {name: _opened(part) for name, part in parts.items()})


def _closed(tree: Any) -> Any:
    return jax.tree.map(_closed_node, tree, is_leaf=lambda node: isinstance(node, _Parts))


def _closed_node(node: Any) -> Any:
    if not isinstance(node, _Parts):
        return node
    parts = {name: _closed(part) for name, part in node.parts.items()}
    if node.kind is types.MethodType:
        return types.MethodType(parts["function"], parts["object"])
    return node.kind(parts["func"], *parts["args"], **parts["keywords"])
