# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether what was compiled for a model is still that model."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr

from numpyro_scores._words import nameless, to_numpy


def fingerprint(f: Callable, *args: Any) -> tuple[str, list[Any]]:
    """
    The operations of a function of these arguments, and the arrays that it takes from elsewhere: a
    global, a closure, the weights of a network that was trained in the meantime. Two that agree
    need not be compiled twice. The rule of a custom derivative shows only in a derivative, so that
    `f` should take those that are wanted.
    """

    def anew(*args):
        return f(*args)  # a function that JAX has seen is not traced again

    return fingerprint_of(jax.make_jaxpr(anew)(*args))


def fingerprint_of(closed: ClosedJaxpr) -> tuple[str, list[Any]]:
    """The same of a function that was traced."""
    # A NumPy array may be changed in place.
    constants = [
        value if isinstance(value, jax.Array) else np.array(value) for value in _constants(closed)
    ]
    return nameless(closed.jaxpr), constants


def agree(a: tuple[str, list[Any]], b: tuple[str, list[Any]]) -> bool:
    """Whether two fingerprints are of the same function."""
    if a[0] != b[0] or len(a[1]) != len(b[1]):
        return False
    return all(_equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def _equal(x: Any, y: Any) -> bool:
    if x is y:
        return True
    x, y = to_numpy(x), to_numpy(y)
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def _constants(closed: ClosedJaxpr) -> Iterator[Array]:
    yield from closed.consts
    yield from _constants_within(closed.jaxpr)


def _constants_within(jaxpr: Jaxpr) -> Iterator[Array]:
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda value: isinstance(value, ClosedJaxpr | Jaxpr),
        ):
            if isinstance(value, ClosedJaxpr):
                yield from _constants(value)
            elif isinstance(value, Jaxpr):
                yield from _constants_within(value)
