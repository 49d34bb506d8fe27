# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The length on which a direction is forgotten, from the autocorrelation of draws of warmup."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

# Of the autocorrelation length of a chain: Robnik et al. 2023, "Microcanonical Hamiltonian Monte
# Carlo", section 4.
SHARE = 0.4
# Coordinates by which the autocorrelation is told.
MAX_COORDINATES = 64


def autocorrelation_time(x: Array) -> Array:
    r"""
    Of the draws of one chain: :math:`1 + 2 \sum_k \rho_k`, summed while the pairs
    :math:`\rho_{2k} + \rho_{2k+1}` are positive (Geyer 1992), for each column, and of these the
    harmonic mean of the numbers of effective draws.

    :param x: shape `(num_draws, d)`.
    :return: shape `()`, one at least.
    """
    num_draws = len(x)
    centred = x - x.mean(0)
    spectrum = jnp.abs(jnp.fft.rfft(centred, n=2 * num_draws, axis=0)) ** 2
    products = jnp.fft.irfft(spectrum, axis=0)[:num_draws]
    rho = products / jnp.maximum(products[0], jnp.finfo(x.dtype).tiny)
    pairs = rho[: num_draws // 2 * 2].reshape(num_draws // 2, 2, -1).sum(1)
    positive = jnp.cumprod(pairs > 0, axis=0)
    times = 2 * jnp.sum(pairs * positive, axis=0) - 1
    return jnp.maximum(jnp.mean(times), 1.0)


@dataclass(frozen=True)
class Recorder:
    """
    Keeps some coordinates of the draws of a part of warmup.

    :param first: number of the first draw of it.
    :param last: number of the draw behind it.
    """

    first: int
    last: int

    def start(self, x: Array) -> Array | None:
        """What is kept, shape `(num_draws, num_coordinates)`; None if two draws are no chain."""
        if self.last - self.first < 4:
            return None
        return jnp.zeros((self.last - self.first, min(x.size, MAX_COORDINATES)), x.dtype)

    def after(self, kept: Array, i: Array, x: Array) -> Array:
        """With draw number `i`, if it is of that part."""
        coordinates = np.linspace(0, x.size - 1, kept.shape[1]).astype(int)
        row = jnp.where((i >= self.first) & (i < self.last), i - self.first, len(kept))
        return kept.at[row].set(x[coordinates], mode="drop")

    def length(self, kept: Array, between_draws: Array) -> Array:
        """
        :param between_draws: the way from draw to draw. One such is taken off, the
            autocorrelation of draws that are too far apart to tell.
        """
        return SHARE * between_draws * (autocorrelation_time(kept) - 1)
