# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Distributions of NumPyro pass the contract, and one with any fault fails it, in its words."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.distributions import constraints

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

LOC = jnp.array([0.5, -1.0])


class Gaussian(dist.Distribution):
    """With mean `loc`, shape `(d,)`, written by hand; `fault` names what is wrong with it."""

    arg_constraints = {"loc": constraints.real_vector}
    support = constraints.real_vector
    pytree_data_fields = ("loc",)
    pytree_aux_fields = ("fault", "function")

    def __init__(self, loc, fault=None, *, validate_args=None):
        self.loc, self.fault = loc, fault
        self.function = (lambda x: x) if fault == "a lambda" else None
        super().__init__((), loc.shape, validate_args=validate_args)

    def log_prob(self, value, intermediates=None):
        loc = LOC if self.fault == "a constant" else self.loc
        square = (value - loc) ** 2
        if self.fault == "sums the batch":
            return -jnp.sum(square) / 2
        if self.fault == "of the batch" and value.ndim > 1:
            square = square - square.mean()
        return -jnp.sum(square, -1) / 2

    def sample(self, key, sample_shape=()):
        if self.fault == "cannot":
            raise NotImplementedError
        if self.fault == "ignores the key":
            key = random.key(0)
        if self.fault == "ignores the shape":
            sample_shape = ()
        return self.loc + random.normal(key, (*sample_shape, *self.event_shape))


class Positive(Gaussian):
    support = constraints.independent(constraints.positive, 1)


class Flat(Gaussian):
    support = constraints.real


class Unregistered(Gaussian):
    pytree_data_fields = ()

    def tree_flatten(self):
        return (), (self.loc, self.fault)

    @classmethod
    def tree_unflatten(cls, aux, leaves):
        return cls(np.zeros(3))


POINTS = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)


@pytest.mark.parametrize(
    "make",
    [
        partial(Gaussian, LOC),
        partial(dist.LogNormal, LOC, 1.0),
        partial(dist.BernoulliProbs, jnp.array([0.3, 0.6])),
    ],
    ids=lambda make: make.func.__name__,
)
def test_a_right_distribution_passes(make):
    ns.testing.check_distribution(make, key=random.key(0))


@pytest.mark.parametrize(
    "cls, fault, words",
    [
        (Gaussian, "sums the batch", r"log_prob has shape \(\), for \(3,\)"),
        (Gaussian, "of the batch", "log_prob of a batch, for its points"),
        (Gaussian, "a constant", "log_prob does not change with the leaves"),
        (Gaussian, "a lambda", "An equal distribution is traced anew"),
        (Gaussian, "cannot", "without a word"),
        (Gaussian, "ignores the key", "Another key gives the same draws"),
        (Gaussian, "ignores the shape", r"Draws of shape \(2, 2\) have shape \(2,\)"),
        (Positive, None, "points .* are outside of"),
        (Flat, None, "The event has 1 axes, its support 0"),
        (Unregistered, None, r"From its leaves it has .*event_shape \(3,\)"),
    ],
)
def test_a_wrong_distribution_fails(cls, fault, words):
    with pytest.raises(AssertionError, match=words):
        ns.testing.check_distribution(
            partial(cls, LOC, fault), POINTS, key=random.key(0), pickled=False
        )


def test_points_of_another_shape_are_told():
    with pytest.raises(ValueError, match=r"\(n, \*batch_shape, \*event_shape\)"):
        ns.testing.check_distribution(partial(Gaussian, LOC), jnp.ones((3, 3)), key=random.key(0))
