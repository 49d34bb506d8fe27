# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Means and variances of chains of any length, chunk by chunk, in float64."""

from typing import NamedTuple

import numpy as np

# Numbers that are held in float64 at a time.
MAX_NUMBERS = 2**17


class RunningMoments(NamedTuple):
    """
    - **count** - draws of each chain.
    - **mean** - of each chain, shape `(chains, ...)`, float64.
    - **squares** - sums of squares about it, likewise.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, draws: np.ndarray) -> "RunningMoments":
        """Of draws of shape `(chains, draws, ...)`, some at a time."""
        step = max(1, MAX_NUMBERS // max(draws[:, :1].size, 1))
        found = cls._of_few(draws[:, :step])
        for start in range(step, draws.shape[1], step):
            found = found.merged(cls._of_few(draws[:, start : start + step]))
        return found

    @classmethod
    def _of_few(cls, draws: np.ndarray) -> "RunningMoments":
        draws = draws.astype(np.float64)
        mean = draws.mean(axis=1)
        return cls(draws.shape[1], mean, np.square(draws - mean[:, None]).sum(axis=1))

    @classmethod
    def about(
        cls, count: int, reference: np.ndarray, mean: np.ndarray, squares: np.ndarray
    ) -> "RunningMoments":
        """Of a mean of differences from a point of reference, and squares about that mean."""
        mean = reference.astype(np.float64) + mean
        return cls(count, mean, squares.astype(np.float64))

    def merged(self, other: "RunningMoments") -> "RunningMoments":
        r"""
        Those of both runs of draws (Chan, Golub & LeVeque 1983, eq. 2.1): with
        :math:`\delta = \bar y - \bar x`,

        .. math::
            \bar z = \bar x + \delta \frac{n_y}{n}, \qquad
            S_z = S_x + S_y + \delta^2 \frac{n_x n_y}{n}.
        """
        count = self.count + other.count
        delta = other.mean - self.mean
        return RunningMoments(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + delta**2 * (self.count * other.count / count),
        )

    def pooled(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance (divided by `n - 1`) of all chains together, shape `(...)`."""
        num_chains = len(self.mean)
        mean = self.mean.mean(axis=0)
        squares = self.squares.sum(axis=0) + self.count * np.square(self.mean - mean).sum(axis=0)
        return mean, squares / max(self.count * num_chains - 1, 1)
