# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What an objective, a prior and a sampler need of a noise process."""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores._validation import as_number, check_count, is_concrete


@runtime_checkable
class NoiseProcess(Protocol):
    """What an objective needs of a process: the noise level over time in [0, 1]."""

    def noise_level(self, t: Array) -> Array:
        """The standard deviation of the noise at time `t`."""
        ...


def hold_floats(process: Any, *names: str) -> None:
    """Make numbers of fields that came as arrays of JAX: those have no hash."""
    for name in names:
        object.__setattr__(process, name, float(getattr(process, name)))


def check_process(process: Any) -> None:
    """
    Raise unless an object has the noise levels of a process: `sigma_min` and `sigma_max`, finite,
    positive, and the second larger.
    """
    # A class has the properties of its instances, too.
    if isinstance(process, type) or not (
        hasattr(process, "sigma_min") and hasattr(process, "sigma_max")
    ):
        raise TypeError(
            "process must be a noise process, such as VarianceExploding(sigma_min=0.02, "
            f"sigma_max=10.0), got {process!r}."
        )
    for name in ("sigma_min", "sigma_max"):
        level = getattr(process, name)
        if is_concrete(level) and not 0 < as_number(level) < math.inf:
            raise ValueError(
                f"{type(process).__name__}.{name} must be finite and positive, got {level!r}: end "
                "the process where the noise no longer matters, and begin it where nothing but "
                "noise is left, as with sigma_min=0.02 and sigma_max=100.0."
            )
    ends = process.sigma_min, process.sigma_max
    if all(map(is_concrete, ends)) and not as_number(ends[0]) < as_number(ends[1]):
        raise ValueError(f"{type(process).__name__} must have sigma_min < sigma_max, got {ends}.")
    try:
        hash(process)
    except TypeError as error:
        raise TypeError(
            f"{type(process).__name__} must be hashable, as a dataclass(frozen=True) of numbers "
            f"is: {error}."
        ) from error


def check_noise_levels(process: NoiseProcess, num_times: int = 33) -> None:
    """Raise unless the noise level is finite and positive at all times, 0 and 1 among them."""
    times = np.linspace(0, 1, num_times)
    levels = process.noise_level(jnp.asarray(times, float))
    if not is_concrete(levels):
        return
    wrong = ~(np.isfinite(levels) & (np.asarray(levels) > 0))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"{type(process).__name__}.noise_level must be finite and positive for times from 0 to "
            f"1, but at time {times[first]:.3g} it is {np.asarray(levels)[first]:.3g}: end the "
            "process before there is no signal, and begin it where there is some noise."
        )


class TimedProcess(ABC):
    r"""
    :math:`x_t = s(t) (x_0 + \sigma(t) z)` for :math:`t \in [0, 1]`: a scale, and a noise level in
    the units of the data, which is all that a denoiser sees of the process (Karras et al. 2022,
    appendix B). Given :math:`x_0`, the mean of :math:`x_t` is :math:`s(t) x_0` and its covariance
    :math:`s(t)^2 \sigma(t)^2 I`.

    A subclass has `sigma_min` and `sigma_max`, the noise levels of the times 0 and 1.
    """

    if TYPE_CHECKING:  # fields of some subclasses, properties of others

        @property
        def sigma_min(self) -> float: ...

        @property
        def sigma_max(self) -> float: ...

    @abstractmethod
    def scale(self, t: Array) -> Array:
        r""":math:`s(t)`."""

    @abstractmethod
    def noise_level(self, t: Array) -> Array:
        r""":math:`\sigma(t)`, the standard deviation of the noise at time `t`."""

    @abstractmethod
    def time(self, sigma: Array) -> Array:
        """The time at which the noise level is `sigma`."""

    def noise_levels(self, num_levels: int) -> Array:
        """The noise levels of equally spaced times, from `sigma_max` down to `sigma_min`."""
        check_count("num_levels", num_levels)
        if num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {num_levels}.")
        return levels_of_equal_times(self, jnp.asarray(self.sigma_min, float), num_levels)

    def sample_noise_level(self, key: Array, shape: tuple[int, ...] = ()) -> Array:
        """The noise levels of uniform times."""
        return self.noise_level(random.uniform(key, shape))


def levels_of_equal_times(
    process: TimedProcess, sigma: Any, num_levels: int, sigma_from: Any = None
) -> Array:
    """
    :param sigma: the last level.
    :param sigma_from: the first level; by default the `sigma_max` of the process.
    :return: the noise levels of equally spaced times, from large to small, shape `(num_levels,)`.
    """
    first = 1.0 if sigma_from is None else process.time(sigma_from)
    levels = process.noise_level(jnp.linspace(first, process.time(sigma), num_levels))
    return with_ends(levels, process.sigma_max if sigma_from is None else sigma_from, sigma)


def with_ends(levels: Array, first: Any, last: Any) -> Array:
    """The levels with these ends, exactly: nobody trained a level above the largest."""
    return levels.at[0].set(first).at[-1].set(last)
