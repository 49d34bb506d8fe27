# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Distributions known by their score, on bounded supports: the log density up to its constant."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.tree_util import Partial
from numpyro.distributions import constraints

from numpyro_scores import ScoreDistribution

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIMPLEX = [[0.2, 0.3, 0.5], [0.01, 0.04, 0.95], [0.6, 0.399, 0.001]]
CASES = {
    "gamma": (constraints.positive, dist.Gamma(2.0, 1.0), [[0.001], [0.1], [2.0], [9.0]]),
    "inverse gamma": (constraints.positive, dist.InverseGamma(3.0, 1.0), [[0.1], [0.5], [9.0]]),
    "exponential": (constraints.nonnegative, dist.Exponential(3.0), [[0.001], [0.5], [4.0]]),
    "far from zero": (
        constraints.greater_than(7.0),
        dist.TransformedDistribution(dist.Gamma(2.0, 1.0), dist.transforms.AffineTransform(7, 1)),
        [[7.01], [8.0], [11.0]],
    ),
    "half a normal, below": (
        constraints.less_than(-1.0),
        dist.Normal(0.0, 1.0),
        [[-1.001], [-2.0], [-5.0]],
    ),
    "beta": (constraints.unit_interval, dist.Beta(2.0, 3.0), [[0.001], [0.4], [0.999]]),
    "arcsine": (constraints.unit_interval, dist.Beta(0.5, 0.5), [[0.001], [0.4], [0.999]]),
    "truncated normal": (constraints.interval(-1, 4), dist.Normal(0, 1), [[-0.99], [1.0], [3.9]]),
    "circle": (constraints.circular, dist.VonMises(0.5, 2.0), [[-3.0], [0.1], [3.1]]),
    "simplex": (constraints.simplex, dist.Dirichlet(jnp.array([2.0, 3.0, 0.5])), SIMPLEX),
    "ordered": (constraints.ordered_vector, dist.Normal(0, 1).expand([2]).to_event(1), [[-1, 2.0]]),
}


def known_by_its_score(exact):
    def log_density(x):
        return jnp.sum(exact.log_prob(x if exact.event_shape else x[0]))

    # The score of a point of the simplex has a part along which it can't move, which drops out.
    return log_density, jax.grad(log_density)


@pytest.mark.parametrize("name", CASES)
def test_the_log_density_is_right_up_to_its_value_at_the_default_reference(x64, name):
    support, exact, x = CASES[name]
    x = np.asarray(x, float)
    with numpyro.validation_enabled(False):
        log_density, score = known_by_its_score(exact)
        d = ScoreDistribution(score, x.shape[1:], support=support)
        assert np.all(d.support(d.reference))
        points = np.concatenate([x, d.reference[None]])
        found, slopes = jax.jit(jax.vmap(jax.value_and_grad(d.log_prob)))(points)
        expected, scores = jax.jit(jax.vmap(lambda x: (log_density(x), score(x))))(points)
        assert found[-1] == 0
        np.testing.assert_allclose(found, expected - expected[-1], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(slopes[:-1], scores[:-1], rtol=1e-12)


def test_on_the_border_and_outside_there_is_no_density():
    gamma = ScoreDistribution(lambda x: 1 / x - 1, 2, support=constraints.positive)
    x = jnp.array([[1.0, 1.0], [0.0, 1.0], [-1.0, 1.0]])
    with numpyro.validation_enabled(False):  # which warns
        np.testing.assert_array_equal(gamma.log_prob(x), [0, -jnp.inf, -jnp.inf])


@pytest.mark.parametrize(
    "support, reference",
    [
        (constraints.positive, [0.0, 1.0]),
        (constraints.nonnegative, [1.0, 0.0]),
        (constraints.positive, [1.0, -1.0]),
        (constraints.interval(0.0, 2.0), [1.0, 2.0]),
        (constraints.interval(0, 2), [1, 3]),
        (constraints.simplex, [1.0, 0.0]),
        (constraints.simplex, [0.5, 0.2]),
    ],
)
def test_a_reference_that_is_not_in_the_interior_is_refused(support, reference):
    with pytest.raises(ValueError, match="reference must be in the interior of the support"):
        ScoreDistribution(jnp.negative, 2, support=support, reference=reference)


def test_a_support_that_is_no_open_set_of_numbers_is_refused():
    with pytest.raises(ValueError, match="no map from unconstrained coordinates onto the support"):
        ScoreDistribution(jnp.negative, 2, support=constraints.sphere)


def test_its_parameters_have_gradients_whatever_the_bounds_are(x64):
    """Truncated between integers: minus half of the square, times the precision."""

    def log_prob(precision):
        score = Partial(lambda precision, x: -precision * x, precision)
        return ScoreDistribution(score, 1, support=constraints.interval(0, 4)).log_prob(
            jnp.array([3.0])
        )

    np.testing.assert_allclose(jax.jit(jax.grad(log_prob))(2.0), (4 - 9) / 2, rtol=1e-8)
