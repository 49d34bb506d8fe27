# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every distribution promises as a function of a point, whatever it is made of."""

import pickle

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

from numpyro_scores import DiffusionPrior, EnergyDistribution, ScoreDistribution

pytestmark = [
    pytest.mark.filterwarnings("error:Out-of-support"),
    pytest.mark.usefixtures("quick_compilation"),
]


@every
def test_round_trip_through_its_leaves(make):
    d = make()
    leaves, treedef = jax.tree.flatten(d)
    again = treedef.unflatten(leaves)
    assert type(again) is type(d)
    assert jax.tree.structure(again) == treedef
    assert (again.batch_shape, again.event_shape) == ((), d.event_shape)
    assert type(again.support) is type(d.support) and again.support == d.support
    x = points(make)[0, 0]
    assert log_prob(again, x) == log_prob(d, x)


@every
def test_an_equal_distribution_is_not_traced_again(make):
    traces = []

    @jax.jit
    def compiled(d, x):
        traces.append(d)
        return d.log_prob(x)

    others = [make(), jax.tree.map(lambda leaf: 1.5 * leaf, make())]
    values = [compiled(d, points(make)[0, 0]) for d in [make(), *others]]
    assert len(traces) == 1
    assert values[0] == values[1]
    # Its parameters are arguments of the compiled function, not constants in it.
    assert (values[0] != values[2]) == bool(jax.tree.leaves(make()))


@every
def test_a_pickled_distribution_is_the_same(make):
    d = make()
    again = pickle.loads(pickle.dumps(d))
    assert jax.tree.structure(again) == jax.tree.structure(d)
    x = points(make)[0, 0]
    assert log_prob(again, x) == log_prob(d, x)


@every
def test_batches_of_any_rank_are_mapped(make):
    d, x = make(), points(make)
    expected = pointwise(d, x)
    for batch, value in [(x, expected), (x[0], expected[0]), (x[0, 0], expected[0, 0])]:
        found = log_prob(d, batch)
        assert found.shape == value.shape
        assert_close(found, value, **TOLERANCE)


@every
def test_vmap_is_a_batch(make):
    d, x = make(), points(make)
    found = jax.jit(jax.vmap(jax.vmap(d.log_prob)))(x)
    assert_close(found, log_prob(d, x), **TOLERANCE)


@every
def test_distributions_are_mapped_over_stacked_parameters(make):
    x = points(make)[0, :2]
    ds = [make(), jax.tree.map(lambda leaf: 1.5 * leaf, make())]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *ds)
    axes = 0 if jax.tree.leaves(stacked) else None  # a plain energy has no parameters
    found = jax.vmap(log_prob, (axes, 0))(stacked, x)
    assert_close(found, [log_prob(d, x) for d, x in zip(ds, x, strict=True)], **TOLERANCE)


@continuous
def test_the_gradient_is_the_score(make):
    d, x = make(), points(make)
    found = jax.jit(jax.vmap(jax.vmap(jax.grad(d.log_prob))))(x)
    expected = jax.jit(jax.vmap(jax.vmap(lambda x: exact_score(d, x))))(x)
    assert_close(found, expected, **TOLERANCE)


@every
def test_integers_are_numbers(make):
    d = make()
    found = jax.eval_shape(d.log_prob, np.ones((3, *d.event_shape), int))
    assert (found.shape, found.dtype) == ((3,), jnp.result_type(float))


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


@CONSTRUCTORS
def test_a_point_may_be_a_scalar(make):
    assert log_prob(make(()), np.zeros(5)).shape == (5,)
