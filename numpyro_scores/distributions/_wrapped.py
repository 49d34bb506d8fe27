# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Through `expand`, `to_event`, `mask` and `plate` to the distribution beneath them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro.distributions.distribution import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)


def base_of(fn: Any) -> Any:
    """The distribution beneath."""
    while isinstance(fn, ExpandedDistribution | Independent | MaskedDistribution):
        fn = fn.base_dist
    return fn


def with_base(fn: Any, change: Callable[[Any], Any]) -> Any:
    """`fn` with `change(base)` in place of the distribution beneath."""
    if isinstance(fn, ExpandedDistribution):
        return with_base(fn.base_dist, change).expand(fn.batch_shape)
    if isinstance(fn, Independent):
        return with_base(fn.base_dist, change).to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, MaskedDistribution):
        return MaskedDistribution(with_base(fn.base_dist, change), fn._mask)
    return change(fn)


def num_event_axes(fn: Any) -> int:
    """How many axes of its event `to_event` has made of axes of its batch."""
    if isinstance(fn, Independent):
        return fn.reinterpreted_batch_ndims + num_event_axes(fn.base_dist)
    if isinstance(fn, ExpandedDistribution | MaskedDistribution):
        return num_event_axes(fn.base_dist)
    return 0


def copies_of(fn: Any, value: Any) -> tuple[int, ...]:
    """
    The shape in which a value holds points of the distribution beneath: its batch, and what
    `to_event` has made of that, as in `Ising(...).expand([3]).to_event(1)`.
    """
    shape = jnp.shape(value)
    return shape[: len(shape) - len(base_of(fn).event_shape)]


def mask_of(fn: Any) -> Array | bool:
    """Which copies count (see `copies_of`): all masks, in a shape that broadcasts to theirs."""
    if isinstance(fn, MaskedDistribution):
        mask = fn._mask
        if not isinstance(mask, bool):
            mask = jnp.reshape(mask, (*jnp.shape(mask), *[1] * num_event_axes(fn)))
        return mask & mask_of(fn.base_dist)
    if isinstance(fn, ExpandedDistribution | Independent):
        return mask_of(fn.base_dist)
    return True


def power_of(site: Any) -> Array | None:
    """
    The power to which the density of each copy is raised in a model: what `handlers.scale` says,
    and zero where a mask leaves it out. None means one for all.

    :param site: of a trace.
    :return: the shape of `copies_of`.
    """
    fn, scale, mask = site["fn"], site["scale"], mask_of(site["fn"])
    if scale is None and mask is True:
        return None
    copies, n = copies_of(fn, site["value"]), num_event_axes(fn)
    power = jnp.ones(copies)
    if scale is not None:
        batch = copies[: len(copies) - n]
        # A scale of more axes than the log density counts it repeatedly.
        repeated = jnp.broadcast_to(scale, jnp.broadcast_shapes(jnp.shape(scale), batch))
        power *= jnp.reshape(sum_to(repeated, batch), (*batch, *[1] * n))
    return jnp.where(jnp.broadcast_to(mask, copies), power, 0.0)


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes that broadcasting has added to `shape`."""
    x = jnp.sum(x, tuple(range(x.ndim - len(shape))))
    return jnp.sum(x, tuple(a for a, n in enumerate(shape) if n == 1), keepdims=True)
