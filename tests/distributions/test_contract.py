# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every distribution promises as a function of a point, whatever it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions.helpers import (
    CAN_DRAW,
    CANNOT_DRAW,
    PROCESS,
    TOLERANCE,
    assert_close,
    continuous,
    every,
    exact_score,
    ising,
    log_prob,
    points,
    pointwise,
    potts,
    wiener,
)
from jax import random

import numpyro_scores as ns
from numpyro_scores import DiffusionPrior, EnergyDistribution, ScoreDistribution

pytestmark = [
    pytest.mark.filterwarnings("error:Out-of-support"),
    pytest.mark.usefixtures("quick_compilation"),
]


@every
def test_it_is_a_distribution_of_numpyro(make):
    d, x = make(), points(make)
    ns.testing.check_distribution(make, x[0], key=random.key(0), tolerance=TOLERANCE["rtol"])
    again = jax.tree.unflatten(jax.tree.structure(d), jax.tree.leaves(d))
    assert again.support == d.support
    assert_close(log_prob(d, x), pointwise(d, x), **TOLERANCE)


@continuous
def test_the_gradient_is_the_score(make):
    d, x = make(), points(make)
    found = jax.jit(jax.vmap(jax.vmap(jax.grad(d.log_prob))))(x)
    expected = jax.jit(jax.vmap(jax.vmap(lambda x: exact_score(d, x))))(x)
    assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("make", [*CANNOT_DRAW[:3], *CAN_DRAW, ising, potts])
@pytest.mark.parametrize("validate_args", [False, True])
def test_another_event_shape_is_told(make, validate_args):
    d = make(validate_args=validate_args)
    message = r"log_prob takes points of event shape \(2, 2\), .* got a value of shape "
    for shape in [(), (2,), (4,), (3, 2), (2, 2, 1)]:
        with pytest.raises(ValueError, match=message):
            d.log_prob(np.zeros(shape))


CONSTRUCTORS = pytest.mark.parametrize(
    "make",
    [
        lambda event_shape: EnergyDistribution(jnp.sum, event_shape),
        lambda event_shape: ScoreDistribution(jnp.negative, event_shape),
        lambda event_shape: DiffusionPrior(wiener, PROCESS, event_shape),
    ],
)


@CONSTRUCTORS
@pytest.mark.parametrize("event_shape", [3, np.int64(3), [3], (3,)])
def test_an_event_shape_is_a_tuple_or_one_size(make, event_shape):
    d = make(event_shape)
    assert d.event_shape == (3,)
    assert log_prob(d, np.zeros((5, 3))).shape == (5,)


@CONSTRUCTORS
@pytest.mark.parametrize("event_shape", [0, -1, (2, 0), (2.0,)])
def test_a_bad_event_shape_is_told(make, event_shape):
    with pytest.raises(ValueError, match="every entry of event_shape must be a positive integer"):
        make(event_shape)


def half_square(x, sigma):
    return x**2 / (2 * (1 + sigma**2))


@pytest.mark.parametrize(
    "d",
    [
        EnergyDistribution(jnp.sum, ()),
        ScoreDistribution(jnp.negative, ()),
        DiffusionPrior(ns.denoisers.DenoiserOfEnergy(half_square), PROCESS, ()),
    ],
)
def test_a_point_may_be_a_scalar(d):
    assert log_prob(d, np.zeros(5)).shape == (5,)
