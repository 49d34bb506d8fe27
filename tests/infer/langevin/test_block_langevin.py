# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Steps that follow the curvature of blocks of sites."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer.helpers import draw
from infer.noise_scales import noise_model, two_looks
from jax import random

import numpyro_scores as ns
from numpyro_scores.infer.diffusion.step_sizes import SiteGroups
from numpyro_scores.infer.diffusion.walk import GroupedLangevin

pytestmark = pytest.mark.usefixtures("quick_compilation")


@dataclass(frozen=True)
class FrictionOfAStep(ns.integrators.UnderdampedIntegrator):
    """Its position is the friction of a step, its momentum the time step."""

    num_noises: ClassVar[int] = 3

    def step(self, state, noise, gradient, step_size, friction):
        assert noise.shape == (3, *state.x.shape)
        step_size = jnp.broadcast_to(step_size, state.x.shape)
        return state._replace(x=friction * step_size, memory=step_size)


@pytest.mark.parametrize(
    "settings, friction", [({}, 0.2), ({"friction": 0.7}, 0.7), ({"step_size": 0.1}, 0.2)], ids=str
)
def test_the_friction_is_that_of_a_step_whatever_the_step_size(settings, friction):
    kernel = ns.AnnealedLangevin(
        noise_model,
        integrator=FrictionOfAStep(),
        num_levels=3,
        num_steps=2,
        metric=None,  # or positions would be those of its coordinates
        **settings,
    )
    y = two_looks(3, 0.5)
    state = draw(kernel, random.key(0), 2, None, y)
    for leaf in jax.tree.leaves(state.z):
        np.testing.assert_allclose(leaf, friction, rtol=1e-6)


def test_a_block_that_must_not_move_has_the_friction_of_the_others():
    blocks = SiteGroups(np.array([0, 1]), np.array([False, False]))
    langevin = GroupedLangevin(blocks, num_steps=1, integrator=FrictionOfAStep())
    x = jnp.ones(2)
    start = ns.integrators.IntegratorState(x, x, x)
    end = langevin._step(start, random.key(0), jnp.zeros_like, jnp.array([0.0, 0.02]), 0.2)
    np.testing.assert_allclose(end.x, 0.2, rtol=1e-6)
    np.testing.assert_allclose(end.memory, [0.0, 0.2], rtol=1e-6, atol=1e-15)


def test_a_wall_that_the_steps_were_not_chosen_for_throws_no_chain_out():
    """The step is right for x^2 / 2; below -1 the force is a thousand, and a step of it 500."""

    def gradient(x):
        return x - 1e3 * jax.nn.sigmoid(-20 * (x + 1))

    langevin = GroupedLangevin(SiteGroups(np.array([0]), np.array([False])), num_steps=10)

    def end(key):
        key_noise, key_directions, key_steps = random.split(key, 3)
        walk = langevin.start(jnp.zeros(1), key_noise, key_directions)
        return langevin.run(key_steps, walk, gradient, 1.0)[0].x

    x = jax.jit(jax.vmap(end))(random.split(random.key(0), 200))
    assert np.abs(x).max() < 10


def test_a_step_depends_on_the_slope_only_where_chance_does_not_explain_it():
    """Of curvature 2, four slopes have a root mean square of 3 sqrt(2) at most by chance."""
    blocks, sigma = SiteGroups(np.zeros(4, int), np.array([False])), 0.1

    def step_size(slope):
        return blocks.step_size(jnp.array([2.0]), jnp.full(4, slope), sigma, 5)

    for slope in (0.0, 1.0, -4.2):
        np.testing.assert_allclose(step_size(slope), 0.5 * sigma / np.sqrt(2), rtol=1e-6)
    for slope in (4.3, -1e3):
        np.testing.assert_allclose(step_size(slope), 0.5 * sigma / abs(slope), rtol=1e-6)


def test_the_softest_direction_of_a_level_is_forgotten_in_one_round():
    """From three standard deviations off; with a friction of 0.2 a fifth of the way is left."""
    langevin = GroupedLangevin(
        SiteGroups(np.array([0]), np.array([False])), num_steps=10, is_bounded=True
    )

    def end(key):
        key_noise, key_directions, key_steps = random.split(key, 3)
        walk = langevin.start(jnp.full(1, 3.0), key_noise, key_directions)
        return langevin.run(key_steps, walk, lambda x: x, 1.0)[0].x[0]

    x = jax.jit(jax.vmap(end))(random.split(random.key(0), 2_000))
    assert abs(x.mean()) < 0.1
    np.testing.assert_allclose(x.std(), 1.0, rtol=0.07)
