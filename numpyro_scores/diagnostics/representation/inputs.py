# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Codes and factors as the measures of representations take them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores._validation import check_batch, check_finite, check_key

# Frequencies of values that are rarer than this are noise.
SAMPLES_PER_VALUE = 4


def as_codes(codes: Any) -> np.ndarray:
    """The codes of the samples as doubles, shape `(n, num_codes)`."""
    codes = _as_table("codes", codes)
    if len(codes) < 2:
        raise ValueError(f"codes needs at least 2 samples, got {len(codes)}: encode more data.")
    return codes


def as_factors(factors: Any, num_samples: int) -> np.ndarray:
    """The factors of the samples as doubles, shape `(n, num_factors)`, none of them constant."""
    factors = _as_table("factors", factors)
    n, k = factors.shape
    if n != num_samples:
        hint = " Rows are samples: transpose it." if k == num_samples else ""
        raise ValueError(
            f"codes and factors must be of the same samples, got {num_samples} rows of codes and "
            f"{n} of factors.{hint}"
        )
    if k > n:
        raise ValueError(
            f"factors has {k} factors of {n} samples: rows are samples, columns are factors. "
            "Transpose it, or encode more data."
        )
    for j, column in enumerate(factors.T):
        if np.all(column == column[0]):
            raise ValueError(
                f"factors[:, {j}] has one value, {column[0]:g}, and so nothing to find in a code: "
                "leave it out, or encode data in which it varies."
            )
    return factors


def as_labels(name: str, factors: Any, num_samples: int) -> np.ndarray:
    """The factors of the samples as integers `0, 1, ...`, one for each value."""
    factors = as_factors(factors, num_samples)
    labels = np.empty(factors.shape, np.int64)
    for j, column in enumerate(factors.T):
        values, labels[:, j] = np.unique(column, return_inverse=True)
        if len(values) * SAMPLES_PER_VALUE > num_samples:
            raise ValueError(
                f"{name} needs discrete factors, each value {SAMPLES_PER_VALUE} times or more on "
                f"average, but factors[:, {j}] has {len(values)} values in {num_samples} samples. "
                "Sort a continuous factor into bins, as with numpy.digitize, or encode more data."
            )
    return labels


def generator_of(name: str, key: Array) -> np.random.Generator:
    """What draws on the host from a JAX key."""
    return np.random.default_rng(np.asarray(random.bits(check_key(name, key), (4,))).tolist())


def scaled(codes: np.ndarray) -> np.ndarray:
    """Codes of standard deviation 1; a constant one is zero."""
    # Differences of a constant one are zero, and squares of these in range, but for the last scale.
    codes = codes - codes[0]
    sizes = np.abs(codes).max(axis=0)
    codes = codes / np.where(sizes > 0, sizes, 1.0)
    codes = codes - codes.mean(axis=0)
    deviations = codes.std(axis=0)
    return codes / np.where(deviations > 0, deviations, 1.0)


def _as_table(name: str, x: Any) -> np.ndarray:
    check_batch(name, x)
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(
            f"{name} must have one row for each sample, shape (n, number of {name}), got shape "
            f"{x.shape}: flatten what belongs to one sample."
        )
    # JAX knows of numbers that NumPy does not, such as those of 16 bits of a network's code.
    is_real = jnp.issubdtype(x.dtype, jnp.number) and not jnp.issubdtype(
        x.dtype, jnp.complexfloating
    )
    if not (is_real or x.dtype == bool):
        raise ValueError(
            f"{name} must be real numbers, got {x.dtype}: number the categories, as with "
            "numpy.unique(..., return_inverse=True), and stack parts of complex ones."
        )
    x = x.astype(np.float64)
    check_finite(name, "samples", x, "find out why before you leave them out")
    return x
