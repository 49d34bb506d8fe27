# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a kernel relies on, for every integrator."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores.integrators import (
    BAOAB,
    OBABO,
    SKROCK,
    UBU,
    EulerMaruyama,
    IntegratorState,
    LeimkuhlerMatthews,
    OverdampedIntegrator,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

INTEGRATORS = [EulerMaruyama(), LeimkuhlerMatthews(), SKROCK(4), OBABO(), BAOAB(), UBU()]
every_integrator = pytest.mark.parametrize("integrator", INTEGRATORS, ids=repr)


def gradient(x):
    return x + x**3


def friction_of(integrator, value=0.7):
    return () if isinstance(integrator, OverdampedIntegrator) else (value,)


def start_and_noise(integrator, shape, dtype=None):
    rng = np.random.default_rng(0)
    x, first = rng.normal(size=(2, *shape)).astype(dtype or float)
    noise = rng.normal(size=(integrator.num_noises, *shape)).astype(dtype or float)
    return integrator.init(jnp.asarray(x), jnp.asarray(first), gradient), noise


@every_integrator
def test_it_is_compared_and_hashed_by_its_settings(integrator):
    copy = pickle.loads(pickle.dumps(integrator))
    assert copy == integrator and hash(copy) == hash(integrator)
    assert SKROCK(4) != SKROCK(5)


@every_integrator
def test_each_coordinate_may_have_its_own_step_size_and_friction(x64, integrator):
    """On a potential that is a sum over the coordinates, each moves as if it were alone."""
    start, noise = start_and_noise(integrator, (3,))
    steps, frictions = np.array([0.01, 0.1, 0.3]), np.array([0.2, 1.0, 30.0])
    end = integrator.step(start, noise, gradient, steps, *friction_of(integrator, frictions))
    for i in range(3):
        alone = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], start)
        alone_end = integrator.step(
            alone, noise[:, i : i + 1], gradient, steps[i], *friction_of(integrator, frictions[i])
        )
        np.testing.assert_allclose(end.x[i], alone_end.x[0], rtol=1e-13)


@every_integrator
def test_a_step_uses_no_gradient_but_the_one_where_it_starts(x64, integrator):
    """So that a kernel may replace it when the potential changes under the chain."""
    start, noise = start_and_noise(integrator, (3,))
    friction = friction_of(integrator)
    state = integrator.step(start, noise, gradient, 0.1, *friction)
    renewed = state._replace(grad=gradient(state.x))
    end, renewed_end = (
        integrator.step(s, noise, gradient, 0.1, *friction) for s in (state, renewed)
    )
    np.testing.assert_array_equal(end.x, renewed_end.x)
    np.testing.assert_array_equal(start.grad, gradient(start.x))
    assert not np.any(end.x == state.x)


@every_integrator
def test_it_evaluates_as_many_gradients_as_it_says(integrator):
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return gradient(x)

    start, noise = start_and_noise(integrator, (2,))
    end = integrator.step(start, noise, counted, 0.1, *friction_of(integrator))
    jax.block_until_ready(end)
    jax.effects_barrier()
    assert len(calls) == integrator.num_grad_evals


@every_integrator
def test_single_precision_and_any_shape_are_kept(x64, integrator):
    """In a scan, whose carry may not change, with settings in double precision."""
    start, _ = start_and_noise(integrator, (2, 3), np.float32)
    settings = (0.1, *friction_of(integrator))

    def step(state, key):
        noise = random.normal(key, (integrator.num_noises, 2, 3), jnp.float32)
        return integrator.step(state, noise, gradient, *settings), None

    end, _ = jax.lax.scan(step, start, random.split(random.key(0), 3))
    assert end.x.dtype == jnp.float32 and end.x.shape == (2, 3)


@every_integrator
def test_a_step_that_leaves_the_finite_numbers_is_seen_in_its_state(integrator):
    start, noise = start_and_noise(integrator, (2,))
    end = integrator.step(start, noise, lambda x: x * jnp.nan, 0.1, *friction_of(integrator))
    assert isinstance(end, IntegratorState)
    assert not np.any(np.isfinite(end.grad))
