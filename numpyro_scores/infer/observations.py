# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Values of sites that are not of their distribution: data, and what a chain starts from."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions.distribution import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)

from numpyro_scores._validation import is_concrete


def check_observations(model_trace: Any) -> None:
    """
    Raise if an observation is complex, is none that its discrete distribution could make, or does
    not have the shape of its distribution: NumPyro broadcasts the two, so that data count many
    times. Distributions may be smaller than the data, `Normal(mean[:, None], 1)` of several
    columns, and a single number is a datum that all share.
    """
    for name, site in model_trace.items():
        if site["type"] != "sample" or not site["is_observed"]:
            continue
        _check_array(name, site["value"])
        fn, shape = site["fn"], jnp.shape(site["value"])
        if jnp.iscomplexobj(site["value"]):
            raise TypeError(
                f"The observation of site {name!r} is complex, and NumPyro's distributions are of "
                "real numbers: stack its parts as the output of ns.inverse.Fourier has them, "
                "jnp.stack([y.real, y.imag], axis=-1)."
            )
        is_shared = shape == () and fn.event_shape == ()
        is_of_a_factor = 0 in shape
        if not (is_shared or is_of_a_factor or _fits(shape, fn)):
            raise ValueError(
                f"The observation of site {name!r} has shape {shape}, but its distribution has "
                f"{fn.shape()} (batch {fn.batch_shape}, event {fn.event_shape}), and NumPyro would "
                f"broadcast them. Give the observation the shape {fn.shape()}, with any batch axes "
                "before, or the distribution that of the data: the output of a forward operator "
                "has its out_shape. If data are to count repeatedly: jnp.broadcast_to(y, ...)."
            )
        if not is_of_a_factor:
            _check_states(name, fn, site["value"])


def check_starts(latent: Mapping[str, Any]) -> None:
    """
    Raise if a latent site was given a value that has not its shape, by an `init_strategy` such as
    `init_to_value` or by `substitute`. NumPyro broadcasts it: a single number for a site of three
    would be sampled as one number, whose density counts three times.
    """
    for name, site in latent.items():
        shape = (*site["kwargs"].get("sample_shape", ()), *site["fn"].shape())
        if jnp.shape(site["value"]) != shape:
            raise ValueError(
                f"The latent site {name!r} starts from a value of shape "
                f"{jnp.shape(site['value'])}, but its own is {shape}: give init_to_value (or "
                "substitute) a value of this shape."
            )


def _check_array(name: str, value: Any) -> None:
    if not (hasattr(value, "dtype") or isinstance(value, int | float | complex)):
        raise TypeError(
            f"The observation of site {name!r} is of type {type(value).__name__}, and NumPyro's "
            "distributions are of arrays: give jnp.asarray(y), and number what is no number."
        )


def _check_states(name: str, fn: Any, value: Any) -> None:
    """Raise if an observation is outside of a discrete support, where it can be looked at."""
    # Of a continuous one NumPyro's own validation speaks; a table looked up at a state that there
    # is not says nothing.
    if not fn.support.is_discrete:
        return
    inside = fn.support(value)
    seen = True
    while isinstance(fn, ExpandedDistribution | Independent | MaskedDistribution):
        if isinstance(fn, MaskedDistribution):
            seen = fn._mask
        fn = fn.base_dist
    if not (is_concrete(inside) and is_concrete(seen) and is_concrete(value)):
        return
    inside, seen = np.asarray(inside), np.asarray(seen)
    if seen.shape == inside.shape or seen.ndim == 0:
        inside = inside | ~seen
    elif not seen.all():
        return
    if not inside.all():
        raise ValueError(
            f"The observation of site {name!r} has values outside of the support of "
            f"{type(fn).__name__}, {fn.support}: it holds {_some_of(np.unique(value))}. Spins are "
            "-1 and +1 (2 * bits - 1), labels 0, 1, ...."
        )


def _some_of(values: np.ndarray) -> str:
    shown = ", ".join(str(value) for value in values[:5])
    return f"{shown}, ..." if values.size > 5 else shown


def _fits(shape: tuple[int, ...], fn: Any) -> bool:
    """Whether an observation has the event shape, and all that the batch shape asks for."""
    num_batch_axes = len(shape) - len(fn.event_shape)
    if num_batch_axes < len(fn.batch_shape) or shape[num_batch_axes:] != fn.event_shape:
        return False
    batch = shape[num_batch_axes - len(fn.batch_shape) : num_batch_axes]
    return all(size in (1, n) for size, n in zip(fn.batch_shape, batch, strict=True))
