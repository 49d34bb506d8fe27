# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Data that are not Normal, averaged over a Gaussian value."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import laplace, norm
from numpyro import handlers
from scipy import stats

from numpyro_scores.infer.smc.normal_data import parts_of
from numpyro_scores.infer.smc.other_data import filtered, lines_of, separate

pytestmark = pytest.mark.usefixtures("quick_compilation", "x64")

OPERATOR = np.array([[1.0, 0.5], [0.3, -1.0], [0.7, 0.8]])
Y, MEAN = np.array([1.2, -0.7, 2.0]), np.array([0.4, -0.3])
COVARIANCE = np.array([[1.0, 0.4], [0.4, 2.0]])


def averaged(f):
    slopes = jax.jacobian(f)(MEAN)
    lines = lines_of(slopes, slopes @ COVARIANCE)
    return lines, jax.jit(lambda: filtered(f, jnp.asarray(MEAN), lines))()


def test_numbers_that_are_normal_in_the_value_are_averaged_exactly():
    """As is what they say of the value, as pseudo-numbers of their coordinates."""
    scale = np.array([0.3, 0.05, 1.0])
    lines, found = averaged(lambda v: norm.logpdf(Y, OPERATOR @ v, scale))
    total = OPERATOR @ COVARIANCE @ OPERATOR.T + np.diag(scale**2)
    exact = stats.multivariate_normal.logpdf(Y, OPERATOR @ MEAN, total)
    np.testing.assert_allclose(found.log_mean, exact, atol=0.02)
    rows = np.asarray(found.roots)[:, None] * np.asarray(lines.rows)
    white = OPERATOR / scale[:, None]
    np.testing.assert_allclose(rows.T @ rows, white.T @ white, rtol=5e-3)
    pull = white.T @ ((Y - OPERATOR @ MEAN) / scale)
    np.testing.assert_allclose(rows.T @ found.values, pull, rtol=5e-3)


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_one_number_is_its_integral(scale):
    """One that is seven times narrower than the nodes are apart, too."""
    _, found = averaged(lambda v: laplace.logpdf(Y[:1], OPERATOR[:1] @ v, scale))
    sd = (OPERATOR[0] @ COVARIANCE @ OPERATOR[0]) ** 0.5
    value = np.linspace(-8, 10, 100_001)
    likelihood = stats.laplace.pdf(Y[0], value, scale)
    exact = np.trapezoid(likelihood * stats.norm.pdf(value, OPERATOR[0] @ MEAN, sd), value)
    np.testing.assert_allclose(found.log_mean, np.log(exact), atol=0.05)


def test_numbers_that_depend_on_each_other_are_nearly_averaged():
    """Three Laplace numbers of two, against a sum over a grid; one by one they are 0.3 off."""
    lines, found = averaged(lambda v: laplace.logpdf(Y, OPERATOR @ v, 0.4))
    line = np.linspace(-8, 8, 801)
    v = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)
    log_p = stats.multivariate_normal.logpdf(v, MEAN, COVARIANCE)
    log_p += stats.laplace.logpdf(Y, v @ OPERATOR.T, 0.4).sum(axis=-1)
    exact = np.log(np.sum(np.exp(log_p)) * (line[1] - line[0]) ** 2)
    assert abs(found.log_mean - exact) < 0.1
    alone = lines._replace(correlation=jnp.eye(3))
    apart = filtered(lambda v: laplace.logpdf(Y, OPERATOR @ v, 0.4), jnp.asarray(MEAN), alone)
    assert abs(apart.log_mean - exact) > 0.2


def test_a_likelihood_of_zero_and_a_number_without_a_slope_say_nothing_else():
    def f(v):
        return jnp.stack([jnp.where(v[0] < 100, -jnp.inf, 0.0), -1.5])

    rows = np.array([[1.0, 0.0], [0.0, 0.0]])
    found = filtered(f, jnp.asarray(MEAN), lines_of(rows, rows @ COVARIANCE))
    assert found.log_mean == -jnp.inf and np.all(np.isfinite(found.values))
    assert found.roots[1] == found.values[1] == 0
    found = filtered(lambda v: f(v + 1_000), jnp.asarray(MEAN), lines_of(rows, rows @ COVARIANCE))
    np.testing.assert_allclose(found.log_mean, -1.5, atol=1e-4)


def test_the_numbers_of_a_model_are_those_that_it_counts():
    def model():
        with handlers.scale(scale=jnp.array([1.0, 3.0])):
            numpyro.sample("a", dist.Laplace(MEAN, 1.0), obs=Y[:2])
        counts = dist.Poisson(2.0).expand([3]).to_event(1)
        numpyro.sample("b", counts, obs=np.array([1, 0, 4]))
        shares = dist.Dirichlet(jnp.ones((2, 3))).to_event(1)
        numpyro.sample("c", shares, obs=np.full((2, 3), 1 / 3))

    trace = handlers.trace(model).get_trace()
    rest = parts_of(trace, jnp.float64)[1]
    expected = np.concatenate(
        [
            stats.laplace.logpdf(Y[:2], MEAN) * [1, 3],
            stats.poisson.logpmf([1, 0, 4], 2.0),
            np.full(2, np.log(2)),
        ]
    )
    np.testing.assert_allclose(rest, expected, rtol=1e-6)
    np.testing.assert_allclose(separate(rest, np.array([True])), [expected.sum()], rtol=1e-6)
    assert separate(rest, np.array([True, True])).shape == (7,)
