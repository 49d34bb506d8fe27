# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Methods of a distribution as programs that the second call finds compiled.

A loop (`lax.scan`) outside of `jax.jit` is compiled again at every call, since the function that it
repeats is a new one each time.
"""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array


def compiled(method: Callable[..., Any], distribution: Any, *args: Any, **options: Hashable) -> Any:
    """
    `method(distribution, *args, **options)`, compiled once for distributions of one structure.

    :param method: a plain function, the same object at each call.
    :param args: arrays, or None.
    :param options: what the program is compiled for.
    """
    leaves, treedef = jax.tree.flatten(distribution)
    # An integer or a boolean may steer the Python code of a network: it stays what it is.
    traced = [isinstance(leaf, Array | np.ndarray | np.generic | float) for leaf in leaves]
    arrays = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]
    others = tuple(
        None if is_traced else (type(leaf), leaf)
        for leaf, is_traced in zip(leaves, traced, strict=True)
    )
    return _run(arrays, args, method, treedef, others, tuple(sorted(options.items())))


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _run(arrays, args, method, treedef, others, options):
    rest = iter(arrays)
    leaves = [next(rest) if other is None else other[1] for other in others]
    return method(jax.tree.unflatten(treedef, leaves), *args, **dict(options))
