# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What is trained: the one definition of the parameters of a module."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpyro.distributions import Distribution, biject_to, constraints
from numpyro.distributions.util import lazy_property

from numpyro_scores._callables import as_pytree
from numpyro_scores.training._flax import FlaxModules, by_path, nested
from numpyro_scores.training._pytrees import (
    Path,
    children,
    is_constraint,
    is_float_array,
    is_wrapper,
)

# A node of the module from the parameters by path and the Flax modules of the tree.
Rebuild = Callable[[dict[Path, Any], tuple], Any]


class Parts:
    """
    A module apart, and together again.

    - **params** - what is trained, nested dicts of arrays (of a Flax module its own state):

      * of every Flax module, wherever it is, its `nnx.Param`;
      * of an object with `free_parameters()` what that gives;
      * of a distribution its parameters, those with a constraint as unconstrained numbers that
        `biject_to` maps to it. Not its support, nor a parameter that the support depends on, nor
        the fields in `untrained_fields` of its class (a reference point, a noise level);
      * of any other pytree its arrays of floats.
    - **state** - the other variables of Flax modules, carried from step to step.

    :raises TypeError: if there is nothing to train.
    """

    def __init__(self, module: Any):
        is_flax = isinstance(module, nnx.Module)
        if not is_flax:  # such as a module of two networks
            as_pytree("module", module)  # is it callable?
        walk = _Walk()
        self._rebuild = walk.visit((), module)
        self._modules = FlaxModules(walk.modules, walk.paths)
        self.params = nested(self._modules.params | walk.arrays, is_flax)
        self.state = self._modules.state
        if not jax.tree.leaves(self.params):
            raise TypeError(
                f"There is nothing to train in {type(module).__name__}: it has no nnx.Param and no "
                "array of floats. Weights that a function closes over can't be seen: pass them, as "
                "in jax.tree_util.Partial(function, weights)."
            )

    def merge(self, params: Any, state: Any) -> Any:
        """The module, in evaluation mode."""
        flat = by_path(params)
        return self._rebuild(flat, self._modules.merge(flat, state))

    def merge_to_train(self, params: Any, state: Any, key: Array) -> tuple[Any, Callable[[], Any]]:
        """The module, whose random numbers come from a key, and what gives its state after use."""
        flat = by_path(params)
        modules = self._modules.merge(flat, state, key)

        def state_after() -> Any:
            after = self._modules.state_of(modules)
            return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, state)

        return self._rebuild(flat, modules), state_after


class _Walk:
    """Visits a pytree from its root, and notes what is trained."""

    def __init__(self):
        self.arrays: dict[Path, Any] = {}
        self.modules: list[Any] = []
        self.paths: list[Path] = []

    def visit(self, path: Path, node: Any) -> Rebuild:
        """Note the parameters of a node; what gives it back from them is returned."""
        if isinstance(node, nnx.Pytree | nnx.Variable):
            index = len(self.modules)
            self.modules.append(node)
            self.paths.append(path)
            return lambda params, modules: modules[index]
        if is_wrapper(node):
            inside = self.visit(path, node.wrapped)
            return lambda params, modules: type(node)(inside(params, modules))
        if is_constraint(node):
            return _constant(node)
        if hasattr(node, "free_parameters"):
            return self._free(path, node)
        if not isinstance(node, Distribution):
            return self._children(path, node)
        noted = len(self.arrays)
        rebuild = self._parametrised(path, node) if node.arg_constraints else None
        rebuild = self._children(path, node) if rebuild is None else rebuild
        names = list(self.arrays)[noted:]
        if hasattr(node, "untrained_fields"):  # ours: what bounds them isn't among the parameters
            return rebuild
        return self._without_bounds(node, names, rebuild)

    def _leaf(self, path: Path, value: Any) -> Rebuild:
        if not is_float_array(value):
            return _constant(value)
        self.arrays[path] = value
        return lambda params, modules: params[path]

    def _free(self, path: Path, node: Any) -> Rebuild:
        free, merge = node.free_parameters()
        self.arrays |= {(*path, name): value for name, value in free.items()}
        return lambda params, modules: merge({name: params[*path, name] for name in free})

    def _children(self, path: Path, node: Any) -> Rebuild:
        below = children(node)
        if below is None:
            return self._leaf(path, node)
        named, rebuild = below
        untrained = _untrained(type(node))
        parts = [
            _constant(child) if name in untrained else self.visit((*path, name), child)
            for name, child in named
        ]
        return lambda params, modules: rebuild([part(params, modules) for part in parts])

    def _parametrised(self, path: Path, node: Distribution) -> Rebuild | None:
        """A distribution made anew by its class, with all that it derives from its parameters."""
        cls, before = type(node), dict(self.arrays)
        parts = {}
        for name in inspect.signature(cls.__init__).parameters:
            lazy = isinstance(getattr(cls, name, None), lazy_property)
            if name not in vars(node) or lazy:
                continue
            value, at = vars(node)[name], (*path, name)
            constraint = node.arg_constraints.get(name)
            parts[name] = (
                self.visit(at, value)
                if constraint is None
                else self._constrained(at, constraint, value)
            )

        def rebuild(params: dict[Path, Any], modules: tuple) -> Any:
            made = cls(**{name: part(params, modules) for name, part in parts.items()})
            if "_validate_args" in vars(node):
                made._validate_args = node._validate_args
            return made

        try:
            # Whether it is the old one where the parameters are as they were.
            if _is_same(rebuild(self.arrays, tuple(self.modules)), node):
                return rebuild
        except (TypeError, ValueError, AttributeError):
            pass
        self.arrays = before
        warnings.warn(
            f"{cls.__name__} at {'.'.join(map(str, path)) or 'the top'} is not trained but left as "
            "it is: it can't be made again from its parameters.",
            stacklevel=2,
        )
        return _constant(node)

    def _constrained(self, path: Path, constraint: Any, value: Any) -> Rebuild:
        if not is_float_array(value) or constraints.is_dependent(constraint):
            return _constant(value)
        try:
            to_constrained = biject_to(constraint)
            free = jnp.asarray(to_constrained.inv(jnp.asarray(value)))
        except NotImplementedError:
            return _constant(value)
        if not bool(jnp.all(jnp.isfinite(free))):
            raise ValueError(
                f"The parameter {'.'.join(map(str, path))} is at the border of {constraint} or "
                f"outside of it, where a training can't start: {value}."
            )
        self.arrays[path] = free
        return lambda params, modules: to_constrained(params[path])

    def _without_bounds(self, node: Distribution, names: list[Path], rebuild: Rebuild) -> Rebuild:
        """Leave out what moves the support: a bound is no parameter."""
        modules = tuple(self.modules)

        def moves(moved: list[Path]) -> bool:
            there = {name: value + (name in moved) for name, value in self.arrays.items()}
            return not _is_same(rebuild(there, modules).support, node.support)

        if not names or moves([]) or not moves(names):
            return rebuild
        bounds = [name for name in names if moves([name])]
        fixed = {name: self.arrays.pop(name) for name in bounds}
        return lambda params, modules: rebuild(params | fixed, modules)


def _constant(value: Any) -> Rebuild:
    return lambda params, modules: value


def _untrained(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name in vars(base).get("untrained_fields", ())}


def _is_same(a: Any, b: Any) -> bool:
    """
    Whether two pytrees of floats differ by rounding only. Supports of NumPyro that are compared by
    `==` are the same only if their bounds are one array.
    """
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(
        x is y or np.allclose(x, y, rtol=1e-3, atol=1e-5, equal_nan=True)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
