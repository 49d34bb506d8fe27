# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the distributions of this package share: one formula for one point, mapped over batches."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from numpyro_scores._callables import is_density, mapped_over, name_of
from numpyro_scores._compile import compiled_if_kept
from numpyro_scores._validation import as_event_shape, is_concrete


def check_log_normalizer(value: Any) -> None:
    """Raise unless the normaliser of one distribution is one number, or None."""
    if value is not None and jnp.shape(value) != ():
        raise ValueError(
            f"log_normalizer must have shape (), got shape {jnp.shape(value)}; a batch of "
            "distributions is written with expand or plate."
        )


# Characters of one part in the `repr` of a distribution.
MAX_WORDS = 200


def in_short(value: Any) -> str:
    """A part of a distribution in a few words, arrays by their shapes."""
    if not is_concrete(value):
        return f"traced{list(value.shape)}"
    if isinstance(value, Array | np.ndarray | np.generic):
        return f"{value.item():.4g}" if value.ndim == 0 else f"array{list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(in_short, value))}]"
    if isinstance(value, partial) and not isinstance(value, jax.tree_util.Partial):
        options = [in_short(arg) for arg in value.args]
        options += [f"{name}={in_short(option)}" for name, option in value.keywords.items()]
        return f"{name_of(value.func)}({', '.join(options)})"
    if is_density(value) and not isinstance(value, PointwiseDistribution):
        return type(value).__name__
    is_settings = dataclasses.is_dataclass(value) and jax.tree_util.all_leaves([value])
    words = name_of(value) if callable(value) and not is_settings else repr(value)
    if isinstance(value, PointwiseDistribution):
        words = repr(value)
    return words if len(words) <= MAX_WORDS else type(value).__name__


def _of_points(distribution: Any, value: Array, *args: Any, method: Callable[..., Array]) -> Array:
    def f(x: Array) -> Array:
        return method(distribution, x, *args)

    return mapped_over(f, value.ndim - len(distribution.event_shape))(value)


class PointwiseDistribution(dist.Distribution):
    """
    A NumPyro distribution whose subclass writes the log density of *one* point,
    `_log_density(x) -> ()`; this class maps it over batches, checks shapes and holds the support.
    The batch shape is `()`; `expand` and `plate` give others.
    """

    # Constraints are pytrees, whose bounds may be arrays.
    pytree_data_fields = ("_support",)
    # Fields that `fit` leaves as they are, besides the support.
    untrained_fields: tuple[str, ...] = ()

    def __init__(self, event_shape, support=constraints.real, *, validate_args=None):
        event_shape = as_event_shape(event_shape)
        if support.is_discrete and not type(self).support.is_discrete:
            raise ValueError(f"The support must be continuous, got {support}.")
        missing = len(event_shape) - support.event_dim
        if missing < 0:
            raise ValueError(
                f"The support {support} is of points with {support.event_dim} axes, but "
                f"event_shape {event_shape} has {len(event_shape)}."
            )
        self._support = constraints.independent(support, missing) if missing else support
        super().__init__((), event_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        shown = [f"event_shape={self.event_shape}"]
        for cls in type(self).__mro__:
            for fields in ("pytree_data_fields", "pytree_aux_fields"):
                for name in vars(cls).get(fields, ()):
                    value = getattr(self, name, None)
                    if value is not None and not name.startswith("_"):
                        shown.append(f"{name}={in_short(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return self._support

    @property
    def has_rsample(self) -> bool:
        return False

    @abstractmethod
    def _log_density(self, x: Array) -> Array:
        """The log density at one point, shape `()`."""

    def log_prob(self, value: ArrayLike, intermediates: list[Any] | None = None) -> Array:
        value = self._checked("log_prob", value)
        if self._validate_args:
            self._validate_sample(value)
        return self._of_points(type(self)._log_density, value)

    def _map_points(self, name: str, f: Any, value: ArrayLike) -> Array:
        """`f` of each point of `value`, shape `(*batch_shape, *event_shape)`, one by one."""
        return _of_points(self, self._checked(name, value), method=lambda _, x: f(x))

    def _of_points(self, method: Callable[..., Array], value: Array, *args: Any) -> Array:
        """`method(self, x, *args)` of each point `x` of an array of them, as one program."""
        return compiled_if_kept(_of_points, self, value, *args, method=method)

    def _checked(self, name: str, value: ArrayLike) -> Array:
        """`value` as an array of floats; raise unless it is a batch of points."""
        value = jnp.asarray(value)
        event_dim = len(self.event_shape)
        split = value.ndim - event_dim
        if split < 0 or value.shape[split:] != self.event_shape:
            raise ValueError(
                f"{type(self).__name__}.{name} takes points of event shape {self.event_shape}, "
                f"with any batch axes before; got a value of shape {value.shape}."
            )
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            value = value.astype(float)
        return value
