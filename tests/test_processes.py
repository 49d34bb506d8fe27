# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Noise processes."""

import jax
import numpy as np
import pytest
from jax import random
from scipy import stats

from numpyro_scores import schedules
from numpyro_scores.processes import VarianceExploding

PROCESS = VarianceExploding(sigma_min=0.02, sigma_max=10.0)


def test_the_noise_level_grows_geometrically_in_time(x64):
    t = np.linspace(0, 1, 11)
    levels = PROCESS.noise_level(t)
    np.testing.assert_allclose(levels[[0, -1]], [0.02, 10.0], rtol=1e-14)
    np.testing.assert_allclose(np.log(levels), np.log(0.02) + t * np.log(500), atol=1e-12)


def test_noise_levels_are_the_geometric_schedule_from_large_to_small():
    levels = PROCESS.noise_levels(7)
    np.testing.assert_array_equal(levels, schedules.geometric(10.0, 0.02, 7))
    np.testing.assert_allclose(levels, PROCESS.noise_level(np.linspace(1, 0, 7)), rtol=1e-5)


def test_sampled_noise_levels_are_log_uniform():
    # With 10^5 draws a distribution function that is off by 0.01 is found.
    levels = np.asarray(PROCESS.sample_noise_level(random.key(0), (100_000,)), np.float64)
    uniform = stats.uniform(np.log(0.02), np.log(500))
    assert stats.kstest(np.log(levels), uniform.cdf).pvalue > 1e-6
    assert levels.min() >= 0.02 * (1 - 1e-6) and levels.max() <= 10 * (1 + 1e-6)
    assert PROCESS.sample_noise_level(random.key(0)).shape == ()


def test_a_process_is_a_static_argument_that_does_not_compile_again():
    traces = []

    def level(process, t):
        traces.append(process)
        return process.noise_level(t)

    compiled = jax.jit(level, static_argnums=0)
    for _ in range(2):
        compiled(VarianceExploding(0.02, 10.0), 0.5)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "sigma_min, sigma_max",
    [(10.0, 0.02), (1.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.1, np.inf), (np.nan, 1.0)],
)
def test_bad_noise_levels_are_told(sigma_min, sigma_max):
    with pytest.raises(ValueError, match=r"\(sigma_max, sigma_min\) must be finite, positive"):
        VarianceExploding(sigma_min, sigma_max)
