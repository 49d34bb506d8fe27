# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What samplers of particles through noise levels share: the levels, and what has none."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._validation import check_count
from numpyro_scores.infer.smc.checks import check_noise_conditional
from numpyro_scores.infer.smc.driver import ParticleSampler
from numpyro_scores.infer.smc.population import MAX_ROUNDS


class LevelSampler(ParticleSampler):
    """
    Through geometric noise levels, from the largest of the priors' processes to the smallest that a
    prior has in the model.
    """

    _rung_name = "noise level"

    def _set_num_levels(self, num_levels: int) -> None:
        check_count("num_levels", num_levels)
        if not 2 <= num_levels < MAX_ROUNDS:
            raise ValueError(f"num_levels must be from 2 to {MAX_ROUNDS - 1}, got {num_levels}.")
        self._num_levels = num_levels
        self._levels: np.ndarray = np.zeros(num_levels)

    def _check_sites(self, sites, values, args, kwargs):
        check_noise_conditional(
            type(self).__name__, self.model, args, kwargs, values, sites.processes
        )
        largest = max(process.sigma_max for process in sites.processes.values())
        smallest = min(float(level) for level in sites.levels.values())
        levels = np.geomspace(largest, smallest, self._num_levels)
        if not np.array_equal(levels, self._levels):
            self._levels, self._programs = levels, None  # the programs hold the levels


def spaced_levels(largest: Any, smallest: Any, spread: Array, num: int) -> Array:
    r"""
    Noise levels from the largest to the smallest at equal distances of :math:`\operatorname{arsinh}
    (s / \sigma)`, shape `(num,)`: geometric far below the spread `s` of what has the noise, and few
    far above it, where all is noise and the density is a Gaussian at every level.
    """
    ends = jnp.arcsinh(spread / jnp.asarray([largest, smallest], spread.dtype))
    levels = spread / jnp.sinh(jnp.linspace(*ends, num))
    # As they are: at the smallest the twist is to be the likelihood, not nearly.
    return levels.at[0].set(largest).at[-1].set(smallest)
