# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The largest curvature, against eigenvalues of the whole Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores.curvature import (
    block_directions,
    hessian_vector_product,
    largest_curvature,
    next_directions,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

BLOCKS = np.array([0, 1, 0, 1, 1, 0])
RNG = np.random.default_rng(0)
HESSIAN = RNG.normal(size=(6, 6)) + RNG.normal(size=(6, 6)).T
HESSIAN = (HESSIAN + HESSIAN.T) / 2
POINT = np.array([0.3, -1.2, 0.7, 0.4, -0.2, 1.1])


def quadratic(x):
    return x @ HESSIAN @ x / 2


def wavy(x):
    """A curvature that changes from point to point, and couples every pair of entries."""
    return jnp.sum(x**4) / 4 + jnp.sin(jnp.sum(x)) + quadratic(x) / 4


def directions(seed=0, blocks=BLOCKS):
    return block_directions(random.normal(random.key(seed), blocks.shape), blocks)


def curvatures_of_blocks(hessian, blocks=BLOCKS):
    return np.array(
        [
            np.abs(np.linalg.eigvalsh(hessian[np.ix_(blocks == b, blocks == b)])).max()
            for b in range(blocks.max() + 1)
        ]
    )


def test_the_product_is_that_with_the_hessian(x64):
    v = RNG.normal(size=6)
    found = jax.jit(lambda x, v: hessian_vector_product(jax.grad(wavy), x, v))(POINT, v)
    np.testing.assert_allclose(found, jax.jit(jax.hessian(wavy))(POINT) @ v, rtol=1e-12)


@pytest.mark.parametrize("function", [quadratic, wavy, lambda x: -wavy(x)])
def test_many_iterations_find_the_largest_eigenvalue_of_each_block(x64, function):
    exact = curvatures_of_blocks(np.asarray(jax.jit(jax.hessian(function))(POINT)))
    found, last = largest_curvature(jax.grad(function), POINT, directions(), 300)
    np.testing.assert_allclose(found, exact, rtol=1e-8)
    # The directions are the eigenvectors, and remain inside their blocks.
    np.testing.assert_array_equal(last != 0, np.arange(2)[:, None] == BLOCKS)


def test_the_estimate_is_a_lower_bound_that_grows(x64):
    exact = curvatures_of_blocks(HESSIAN)
    estimates = np.array(
        [largest_curvature(jax.grad(quadratic), POINT, directions(), n)[0] for n in range(1, 8)]
    )
    assert np.all(np.diff(estimates, axis=0) >= -1e-12)
    assert np.all(estimates <= exact * (1 + 1e-12))


def test_one_iteration_is_enough_from_the_directions_of_a_nearby_point(x64):
    _, warm = largest_curvature(jax.grad(wavy), POINT, directions(), 300)
    nearby = POINT + 0.03
    exact = curvatures_of_blocks(np.asarray(jax.hessian(wavy)(nearby)))
    found, _ = largest_curvature(jax.grad(wavy), nearby, warm, 1)
    np.testing.assert_allclose(found, exact, rtol=0.01)


def test_starts_are_the_noise_within_their_block_and_zero_outside():
    noise = jnp.array([1.0, 2.0, 0.0, -4.0, 5.0, 6.0])
    starts = block_directions(noise, BLOCKS)
    np.testing.assert_allclose(
        starts, [[1.0, 0, 0, 0, 0, 6.0], [0, 2.0, 0, -4.0, 5.0, 0]], atol=1e-30
    )
    # An exact zero of the noise must not throw the entry out of its block.
    np.testing.assert_array_equal(starts != 0, np.arange(2)[:, None] == BLOCKS)


@pytest.mark.parametrize(
    "gradient, curvature",
    [(jnp.ones_like, 0.0), (lambda x: jnp.sqrt(x - 10.0), np.nan)],
    ids=["flat", "not-a-number"],
)
def test_directions_outlive_a_point_that_tells_nothing(x64, gradient, curvature):
    found, last = largest_curvature(gradient, POINT, directions(), 3)
    np.testing.assert_array_equal(found, np.full(2, curvature))
    exact, _ = largest_curvature(jax.grad(quadratic), POINT, last, 300)
    np.testing.assert_allclose(exact, curvatures_of_blocks(HESSIAN), rtol=1e-8)


def test_works_under_jit_and_vmap(x64):
    @jax.jit
    @jax.vmap
    def found(x, key):
        start = block_directions(random.normal(key, x.shape), BLOCKS)
        return largest_curvature(jax.grad(quadratic), x, start, 300)[0]

    keys = random.split(random.key(3), 4)
    np.testing.assert_allclose(
        found(jnp.tile(POINT, (4, 1)), keys), np.tile(curvatures_of_blocks(HESSIAN), (4, 1))
    )


def test_renewed_directions_never_vanish_and_find_what_has_outgrown_the_others(x64):
    """In a block of one entry old and fresh are the same or opposite: both still measure it."""
    hessian = np.diag([1.0, 5.0, 3.0])
    blocks = np.array([0, 0, 1])
    for sign in (1.0, -1.0):
        # The curvature was once that of the first entry alone; of the second there is nothing left.
        old = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
        fresh = np.array([[0.3, -0.4, 0.0], [0.0, 0.0, sign]])
        start = next_directions(old, fresh)
        found, _ = largest_curvature(lambda x: hessian @ x, np.zeros(3), start, 20)
        np.testing.assert_allclose(found, [5.0, 3.0], rtol=1e-6)
        assert np.all((start != 0) == (blocks == np.arange(2)[:, None]))
