# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Through `expand`, `to_event`, `mask` and `plate` to the distribution beneath them."""

from collections.abc import Callable
from typing import Any

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
