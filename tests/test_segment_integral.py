# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The nested rules of a segment: their degrees, their symmetry, and what their error measures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_scores import LineIntegral, SegmentIntegral
from numpyro_scores.densities.segment_integral import lobatto

DEGREES = {5: 7, 7: 9, 13: 19}
# Of the rule of every second node: Simpson's, Lobatto's with four points, and the one with seven.
LOWER_DEGREES = {5: 3, 7: 5, 13: 9}


def integrate(num_nodes, score, x, y):
    return SegmentIntegral(num_nodes)(score, x, y, score(x), score(y))


@pytest.mark.parametrize("num_nodes", DEGREES)
def test_exact_up_to_its_degree_and_not_beyond(x64, num_nodes):
    """The score x^k, from -0.4 to 1.1."""
    degree = DEGREES[num_nodes]
    powers = jnp.arange(degree + 2.0)
    x, y = np.full(powers.shape, -0.4), np.full(powers.shape, 1.1)
    values, errors = jax.jit(jax.vmap(lambda k, x, y: integrate(num_nodes, lambda x: x**k, x, y)))(
        powers, x, y
    )
    exact = (1.1 ** (powers + 1) - (-0.4) ** (powers + 1)) / (powers + 1)
    np.testing.assert_allclose(values[:-1], exact[:-1], rtol=1e-12)
    assert abs(values[-1] - exact[-1]) > 1e-9
    # The even part of the error begins after the degree of the lower rule; its odd companion, of
    # one power less, has by symmetry nothing of that degree less one either.
    first = LOWER_DEGREES[num_nodes]
    np.testing.assert_allclose(errors[:first], 0, atol=1e-12)
    assert np.all(errors[first:] > 1e-8)


@pytest.mark.parametrize("num_nodes", DEGREES)
def test_the_even_part_of_the_error_is_the_difference_of_two_rules(num_nodes):
    nodes, weights, lower, odd = lobatto(num_nodes)
    coarse = (weights - lower)[::2]
    np.testing.assert_allclose((weights - lower)[1::2], 0, atol=1e-15)
    powers = np.arange(LOWER_DEGREES[num_nodes] + 1)
    means = np.where(powers % 2 == 0, 1 / (powers + 1), 0)
    np.testing.assert_allclose(coarse @ nodes[::2, None] ** powers, means, atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(odd), np.linalg.norm(lower), rtol=1e-14)
    # Both are blind to what the lower rule integrates exactly, and neither is to the other.
    np.testing.assert_allclose(odd @ nodes[:, None] ** powers[:-1], 0, atol=1e-14)
    np.testing.assert_allclose(odd @ lower, 0, atol=1e-15)


@pytest.mark.parametrize("num_nodes", DEGREES)
def test_backwards_the_integral_changes_its_sign_and_the_error_stays(num_nodes):
    """To rounding, for a score that no rule here resolves."""

    def score(x):
        return jnp.tanh(9 * x - 1) * jnp.exp(x[::-1]) - x**3

    x, y = np.random.default_rng(0).normal(size=(2, 2_000, 3)).astype(np.float32)
    rule = jax.jit(jax.vmap(partial(integrate, num_nodes, score)))
    (value, error), (back, error_back) = rule(x, y), rule(y, x)
    scale = np.abs(value).max()
    np.testing.assert_allclose(back, -value, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(error_back, error, rtol=1e-6, atol=1e-6 * scale)
    assert np.median(error) > 0.03


def test_a_turn_of_the_score_does_not_hide_between_the_nodes(x64):
    """
    Wherever a score of two narrow modes turns, a segment that passes the tolerance is right: the
    odd companion sees what the even part of the error misses where it changes its sign.
    """
    turns = np.linspace(-0.99, 0.99, 1_001)
    sharpness, height = 25.0, 30.0

    def value_and_error(turn):
        def score(x):
            return height * jnp.tanh(sharpness * (x - turn))

        return integrate(7, score, -jnp.ones(1), jnp.ones(1))

    value, error = jax.jit(jax.vmap(value_and_error))(turns)
    exact = (
        height
        / sharpness
        * (
            np.logaddexp(sharpness * (1 - turns), -sharpness * (1 - turns))
            - np.logaddexp(sharpness * (1 + turns), -sharpness * (1 + turns))
        )
    )
    off = np.abs(value - exact)
    assert off.max() > 5
    assert np.all(off <= error)  # the lower rule is the worse one
    _, _, lower, _ = lobatto(7)
    # The difference of the two rules alone vanishes six times in between.
    nodes = np.asarray(lobatto(7)[0])
    even = 2 * lower @ (height * np.tanh(sharpness * (nodes[:, None] - turns)))
    assert np.max(off[np.abs(even) < 1]) > 1


def test_other_numbers_of_nodes_are_refused():
    with pytest.raises(ValueError, match=r"num_nodes of \[5, 7, 13\], got 4. LineIntegral takes"):
        SegmentIntegral(num_nodes=4)
    with pytest.raises(ValueError, match="tolerance must be a finite positive number"):
        SegmentIntegral(tolerance=0.0)
    assert SegmentIntegral(5).num_score_evals == 3 and LineIntegral(4).num_score_evals == 4
