# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The loop that samplers share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._callables import Denoiser
from numpyro_scores._validation import check_count
from numpyro_scores.processes import TimedProcess
from numpyro_scores.samplers.spacings import KarrasSpacing, Spacing


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
