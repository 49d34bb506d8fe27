# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Where noise levels lie."""

import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_scores as ns
from numpyro_scores import schedules
from numpyro_scores.samplers import KarrasSpacing, TimeSpacing

PROCESS = ns.VarianceExploding(sigma_min=0.01, sigma_max=10.0)

BOTH = pytest.mark.parametrize("schedule", [schedules.geometric, schedules.karras])


@BOTH
@pytest.mark.parametrize("num_levels", [2, 3, 10, 232])
@pytest.mark.parametrize("ends", [(50.0, 0.01), (80.0, 0.002), (1.1, 1.0), (500.0, 1e-3)])
def test_the_ends_are_exact_and_the_levels_decrease(schedule, num_levels, ends):
    levels = np.asarray(schedule(*ends, num_levels))
    assert levels.shape == (num_levels,)
    assert (levels[0], levels[-1]) == (np.float32(ends[0]), np.float32(ends[1]))
    assert np.all(np.diff(levels) < 0)


def test_neighbours_of_a_geometric_schedule_have_one_ratio(x64):
    levels = schedules.geometric(50.0, 0.01, 10)
    np.testing.assert_allclose(levels[1:] / levels[:-1], (0.01 / 50) ** (1 / 9), rtol=1e-12)


def test_the_roots_of_a_karras_schedule_are_equidistant(x64):
    steps = np.diff(schedules.karras(80.0, 0.002, 18, rho=7.0) ** (1 / 7))
    np.testing.assert_allclose(steps, (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 17, rtol=1e-10)


def test_a_karras_schedule_lies_between_a_linear_and_a_geometric_one(x64):
    linear = schedules.karras(10.0, 0.1, 7, rho=1.0)
    np.testing.assert_allclose(linear, np.linspace(10, 0.1, 7), rtol=1e-12)
    limit = schedules.karras(10.0, 0.1, 7, rho=1e6)
    np.testing.assert_allclose(limit, schedules.geometric(10.0, 0.1, 7), rtol=1e-4)


@BOTH
@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0.1, 10.0, 5), "strictly decreasing"),
        ((1.0, 1.0, 5), "strictly decreasing"),
        ((1.0, 0.0, 5), "positive"),
        ((float("inf"), 1.0, 5), "finite"),
        ((float("nan"), 1.0, 5), "finite"),
        ((1.0, 0.1, 1), "at least 2"),
        ((1.0, 0.1, 0), "positive integer"),
        ((1.0, 0.1, 2.5), "positive integer"),
    ],
)
def test_bad_arguments_are_told(schedule, arguments, message):
    with pytest.raises(ValueError, match=message):
        schedule(*arguments)


@pytest.mark.parametrize("process", [PROCESS, ns.VariancePreserving(), ns.DDPM()], ids=repr)
def test_karras_spacing_is_equal_in_roots_and_time_spacing_in_time(x64, process):
    levels = KarrasSpacing(rho=7)(process, 0.05, 10)
    np.testing.assert_allclose(levels[jnp.array([0, -1])], [process.sigma_max, 0.05])
    np.testing.assert_allclose(np.diff(levels ** (1 / 7), 2), 0, atol=1e-12)
    levels = TimeSpacing()(process, 0.05, 10)
    np.testing.assert_allclose(np.diff(process.time(levels), 2), 0, atol=1e-9)
