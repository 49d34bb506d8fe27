# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies whose noise levels are of one density, and others."""

import jax.numpy as jnp
import numpy as np
import pytest
from diagnostics.score.test_level_normalizers import MEANS, PROCESS, SCALES, energy
from jax import random

import numpyro_scores as ns
from numpyro_scores.diagnostics import level_consistency

pytestmark = pytest.mark.usefixtures("quick_compilation")

POINTS = MEANS[0] + SCALES * np.random.default_rng(0).normal(size=(8, 3))


def of_one_density(x, sigma):
    """Without the offset of the levels."""
    return energy(x, sigma) - 0.7 - 0.4 * jnp.log(sigma)


def test_the_heat_equation_holds_for_a_mixture_with_noise(x64):
    prior = ns.DiffusionPrior(of_one_density, PROCESS, 3)
    found = level_consistency(prior, POINTS, random.key(0), num_levels=6)
    np.testing.assert_allclose(found.residual, 0, atol=1e-9)
    np.testing.assert_allclose(found.nats, 0, atol=1e-8)


def test_it_measures_what_a_level_adds_in_nats(x64):
    # 0.4 ln(sigma) is 0.4 for a factor e, and 0.4 ln(sigma_max / sigma_min) along all.
    prior = ns.DiffusionPrior(energy, PROCESS, 3)
    found = level_consistency(prior, POINTS, random.key(0), num_levels=6)
    np.testing.assert_allclose(found.residual, 0.4, atol=1e-9)
    np.testing.assert_allclose(found.spread, 0, atol=1e-9)
    np.testing.assert_allclose(found.size, 0.4 * np.log(20 / 0.1), rtol=1e-9)
    assert len(str(found).splitlines()) == 8


def test_what_has_no_energy_or_another_shape_is_told():
    denoiser = ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), PROCESS, 3)
    with pytest.raises(ValueError, match="level_consistency is of .* made of an energy"):
        level_consistency(denoiser, POINTS, random.key(0))
    with pytest.raises(ValueError, match=r"points must have the shape \(n, \*\(3,\)\)"):
        level_consistency(ns.DiffusionPrior(energy, PROCESS, 3), POINTS[:, :2], random.key(0))
