# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
The step size of an integrator without a Metropolis test, from the variance of the error that a step
makes of the energy, a dimension.

On a Gaussian both this variance and the bias of the second moments are functions of the step size
alone (:meth:`numpyro_scores.integrators.Splitting.of_oscillator`), so that the one tells the other:
the step size is right when the variance is that which the bias asked for would have (Robnik,
Cohn-Gordon & Seljak 2024, arXiv 2412.08876). In other directions than the narrowest the bias is
smaller, and what is averaged grows with the sixth power of the step size: the average is of the
directions that are narrow in the metric.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores.integrators.isokinetic import Splitting

# Leading power of the step size in the variance of the energy error.
POWER = 6
# Weight of the draws of warmup in the average: that of number n as n to this power.
FORGETTING = 2.0
# Of the longest stable step over that of the bias asked for: so much narrower may a direction be
# than the others, in which the metric of few draws errs by tens of percent.
MARGIN = 1.6
# By how much a draw of warmup may change the step size.
LARGEST_CHANGE = 2.0


class GaussianErrors(NamedTuple):
    """
    What steps of growing size make of a Gaussian of variance one, up to where the error of the
    energy is largest. Errors of a minimal-norm step change their sign: of them the largest so far.

    - **steps** - the step sizes.
    - **bias** - relative error of the variance, with the sign of that of the step itself.
    - **energy_variance** - of the error that a step makes of the energy.
    - **largest_bias** - from which on steps are nearly unstable.
    """

    steps: np.ndarray
    bias: np.ndarray
    energy_variance: np.ndarray
    largest_bias: float


@lru_cache
def gaussian_errors(splitting: Splitting) -> GaussianErrors:
    steps = np.linspace(0, 4, 2_001)[1:]
    biases, variances = np.array([splitting.of_oscillator(step) for step in steps]).T
    stable = int(np.argmax(np.isnan(biases)))
    end = 1 + int(np.argmax(variances[:stable]))
    largest = np.maximum.accumulate(np.abs(biases[:end]))
    safe = int(np.searchsorted(steps, steps[stable - 1] / MARGIN))
    return GaussianErrors(
        steps[:end],
        np.sign(biases[:end]) * largest,
        np.maximum.accumulate(variances[:end]),
        float(largest[safe]),
    )


@lru_cache
def bias_table(splitting: Splitting) -> tuple[np.ndarray, np.ndarray]:
    """
    Logarithms of the energy variance, in equal steps, so that no draw has to search them; and the
    bias that goes with each.
    """
    known = gaussian_errors(splitting)
    logs = np.log(known.energy_variance)
    grid = np.linspace(logs[0], logs[-1], 2_000)
    return grid, np.interp(grid, logs, known.bias)


@dataclass(frozen=True)
class Calibration:
    """
    The step size of an integrator for a bias, on a Gaussian of variance one, and what tells it.

    :param splitting: the integrator.
    :param desired_bias: relative error of the second moments, above 0 and below 0.5.
    :raises ValueError: if a step of this bias is nearly unstable.
    """

    splitting: Splitting
    desired_bias: float

    def __post_init__(self) -> None:
        largest = gaussian_errors(self.splitting).largest_bias
        if not self.desired_bias < largest:
            raise ValueError(
                f"desired_bias={self.desired_bias!r} needs steps near the end of stability, where "
                "a direction that is a little narrower than warmup has seen explodes: give less "
                f"than {largest:.2g}, or splitting=LEAPFROG, which is stable farther."
            )

    @property
    def _index(self) -> int:
        """Of the longest step whose bias is below the one asked for."""
        largest = np.abs(gaussian_errors(self.splitting).bias)
        return max(int(np.searchsorted(largest, self.desired_bias)) - 1, 0)

    @property
    def step_size(self) -> float:
        return float(gaussian_errors(self.splitting).steps[self._index])

    @property
    def energy_variance(self) -> float:
        """Of such a step."""
        return float(gaussian_errors(self.splitting).energy_variance[self._index])

    def bias(self, energy_variance: Array) -> Array:
        """
        Of a Gaussian whose steps make this error: the largest of steps up to that one, with the
        sign of the last.
        """
        logs, biases = bias_table(self.splitting)
        smallest = gaussian_errors(self.splitting).energy_variance[0]
        seen = jnp.log(jnp.maximum(energy_variance, smallest))
        place = jnp.clip((seen - logs[0]) / (logs[1] - logs[0]), 0, len(logs) - 1)
        below = jnp.clip(jnp.floor(place), 0, len(logs) - 2)
        low, high = (jnp.asarray(biases, place.dtype)[below.astype(int) + k] for k in (0, 1))
        return low + (place - below) * (high - low)


class Tuning(NamedTuple):
    """
    - **coefficient** - mean of the squared energy error a dimension over the sixth power of the
      step size, shape `()`.
    - **count** - number of draws in it.
    """

    coefficient: Array
    count: Array

    @classmethod
    def start(cls, like: Array) -> "Tuning":
        return cls(jnp.zeros_like(like), jnp.zeros_like(like))

    def after(
        self, step_size: Array, energy_variance: Array, is_finite: Array, wanted: float
    ) -> tuple["Tuning", Array]:
        """
        With one draw more, and the next step size.

        :param energy_variance: mean of the squared error of this draw a dimension.
        :param is_finite: whether it ended at finite numbers; else the step was far too long.
        :param wanted: the variance that the step size aims at.
        """
        largest = wanted * LARGEST_CHANGE**POWER
        # What is no number, or beyond all bounds, says no more than that the step is too long.
        seen = jnp.where(is_finite, jnp.minimum(energy_variance, largest), largest)
        seen = jnp.where(jnp.isnan(seen), largest, seen) / step_size**POWER
        count = self.count + 1
        weight = (1 + FORGETTING) / (count + FORGETTING)
        mean = self.coefficient + weight * (seen - self.coefficient)
        tiny = jnp.finfo(mean.dtype).tiny
        new = (wanted / jnp.maximum(mean, tiny)) ** (1 / POWER)
        new = jnp.clip(new, step_size / LARGEST_CHANGE, step_size * LARGEST_CHANGE)
        return Tuning(mean, count), new
