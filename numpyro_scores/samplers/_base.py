# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The loop that samplers share, and where it puts its noise levels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._callables import Denoiser
from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.processes import TimedProcess


@dataclass(frozen=True)
class KarrasSpacing:
    r"""
    Equally spaced in :math:`\sigma^{1 / \rho}` (Karras et al. 2022, equation 5).

    :param rho: 7 in that paper, which crowds the steps near the data; 1 is uniform.
    """

    rho: float = 7.0

    def __post_init__(self):
        check_positive("rho", self.rho)

    def __call__(
        self, process: TimedProcess, sigma: Any, num_levels: int, sigma_from: Any = None
    ) -> Array:
        """
        :param sigma: the last level.
        :param sigma_from: the first level; by default the `sigma_max` of the process.
        :return: noise levels from large to small, shape `(num_levels,)`.
        """
        sigma_from = jnp.asarray(process.sigma_max if sigma_from is None else sigma_from, float)
        ends = sigma_from ** (1 / self.rho), sigma ** (1 / self.rho)
        levels = jnp.linspace(*ends, num_levels) ** self.rho
        # Exact in float32 too: nobody trained a level above the largest.
        return levels.at[0].set(sigma_from).at[-1].set(sigma)


@dataclass(frozen=True)
class TimeSpacing:
    """Equally spaced in the time of the process: the steps of a DDPM, or every so many of them."""

    def __call__(
        self, process: TimedProcess, sigma: Any, num_levels: int, sigma_from: Any = None
    ) -> Array:
        """See :meth:`KarrasSpacing.__call__`."""
        first = 1.0 if sigma_from is None else process.time(sigma_from)
        levels = process.noise_level(jnp.linspace(first, process.time(sigma), num_levels))
        sigma_from = process.sigma_max if sigma_from is None else sigma_from
        return levels.at[0].set(sigma_from).at[-1].set(sigma)


Spacing = KarrasSpacing | TimeSpacing


class PriorSampler(ABC):
    """What `DiffusionPrior.sample` needs: a way from one noise level down to another."""

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        process: TimedProcess,
        x: Array,
        sigma: Any,
        *,
        key: Array,
        sigma_from: Any = None,
    ) -> Array:
        """
        :param denoiser: of one unbatched point.
        :param x: a point of the density at `sigma_from`.
        :param sigma: the level to stop at, positive.
        :param key: key of the noise on the way; samplers without noise leave it.
        :param sigma_from: the level to start at; by default the `sigma_max` of the process.
        :return: the point at `sigma`.
        """


@dataclass(frozen=True)
class ReverseSampler(PriorSampler):
    """
    A subclass writes one step from a noise level to the next, as a function of standard normals,
    and says how many of them it takes, so that on a Gaussian its error can be found without a draw.

    :param num_steps: number of steps.
    :param spacing: where the noise levels lie.
    """

    num_steps: int = 18
    spacing: Spacing = KarrasSpacing()

    @property
    def num_noises(self) -> int:
        """Number of standard normals that a step takes for each entry of a point."""
        return 1

    @property
    def num_evals(self) -> int:
        """Number of evaluations of the denoiser in a step."""
        return 1

    def __post_init__(self):
        check_count("num_steps", self.num_steps)
        if not isinstance(self.spacing, Spacing):
            raise TypeError(
                f"spacing must be KarrasSpacing(rho) or TimeSpacing(), got {self.spacing!r}."
            )

    @abstractmethod
    def step(
        self, denoiser: Denoiser, x: Array, sigma: Array, sigma_next: Array, noise: Array
    ) -> Array:
        """
        :param denoiser: of one unbatched point.
        :param x: a point of the density at `sigma`.
        :param sigma_next: the next level, smaller.
        :param noise: independent standard normals, shape `(num_noises, *x.shape)`.
        :return: the point at `sigma_next`.
        """

    def __call__(self, denoiser, process, x, sigma, *, key, sigma_from=None):
        """See :meth:`PriorSampler.__call__`."""
        sigma = jnp.asarray(sigma, x.dtype)
        levels = self.spacing(process, sigma, self.num_steps + 1, sigma_from).astype(x.dtype)

        def step(x, xs):
            sigma, sigma_next, key = xs
            noise = random.normal(key, (self.num_noises, *x.shape), x.dtype)
            return self.step(denoiser, x, sigma, sigma_next, noise), None

        keys = random.split(key, self.num_steps)
        return lax.scan(step, x, (levels[:-1], levels[1:], keys))[0]


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise unless `low <= value <= high`."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value!r}.")
