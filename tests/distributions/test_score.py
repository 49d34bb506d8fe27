# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Distributions that are known by their score alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import random
from jax.scipy.special import logsumexp
from numpyro.diagnostics import effective_sample_size
from numpyro.distributions import constraints
from numpyro.infer import HMC, MCMC, NUTS
from numpyro.infer.util import potential_energy

from numpyro_scores import LineIntegral, ScoreDistribution

pytestmark = pytest.mark.usefixtures("quick_compilation")

MEANS = np.array([[-1.5, 0.0], [1.5, 1.0], [0.0, -2.0]])
REFERENCE = np.array([0.5, -0.2])
X = np.array([[-2.0, 0.5], [0.3, 2.0], [0.1, -1.0]])


def log_mixture(x):
    """Three Gaussians of unit variance, without the constant."""
    return logsumexp(-jnp.sum((x - MEANS) ** 2, axis=-1) / 2)


def rotation(x):
    """A score that is no gradient."""
    return jnp.array([-x[1] - x[0] ** 3, 2.0 * x[0]])


def test_the_log_density_is_right_up_to_its_value_at_the_reference(x64):
    score = jax.grad(log_mixture)
    points = np.stack([*X, REFERENCE, np.zeros(2)])
    values = jax.vmap(log_mixture)(points)

    d = ScoreDistribution(score, 2, reference=REFERENCE, quadrature=LineIntegral(64))
    found = jax.jit(d.log_prob)(points)
    np.testing.assert_allclose(found, values - values[-2], rtol=1e-11)
    assert found[-2] == 0

    found = jax.jit(ScoreDistribution(score, 2).log_prob)(points)
    np.testing.assert_allclose(found, values - values[-1], rtol=1e-9)
    assert found[-1] == 0


@pytest.mark.parametrize("reference", [[1, 0], (1.0, 0.0), np.array([1, 0])])
def test_the_reference_is_any_sequence_of_numbers(x64, reference):
    d = ScoreDistribution(jnp.negative, 2, reference=reference)
    np.testing.assert_allclose(d.log_prob(X), (1 - np.sum(X**2, 1)) / 2, rtol=1e-12)


def test_the_gradient_is_the_score_even_of_no_gradient_field(x64):
    d = ScoreDistribution(rotation, 2, reference=REFERENCE)
    score = jax.vmap(rotation)(X)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(d.log_prob)))(X), score)
    hessian = jax.jit(jax.hessian(d.log_prob))(X[0])
    np.testing.assert_allclose(hessian, jax.jacobian(rotation)(X[0]), rtol=1e-14)


def test_the_gradient_does_not_differentiate_the_score(x64):
    @jax.custom_jvp
    def score(x):
        return -x

    @score.defjvp
    def _jvp(primals, tangents):
        raise AssertionError("the score was differentiated")

    d = ScoreDistribution(score, 2, reference=REFERENCE)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.value_and_grad(d.log_prob)))(X)[1], -X)


def test_the_parameters_of_the_score_have_the_gradient_of_the_log_density(x64):
    def log_prob(precision, reference):
        score = jax.tree_util.Partial(lambda precision, x: -precision * x, precision)
        return ScoreDistribution(score, 2, reference=reference).log_prob(X[0])

    def exact(precision, reference):
        return precision / 2 * (jnp.sum(reference**2) - np.sum(X[0] ** 2))

    found = jax.jit(jax.grad(log_prob, argnums=(0, 1)))(3.0, jnp.asarray(REFERENCE))
    expected = jax.grad(exact, argnums=(0, 1))(3.0, jnp.asarray(REFERENCE))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


def test_kernels_move_in_the_unconstrained_space_of_the_support(x64):
    def model():
        exponential = ScoreDistribution(
            lambda x: -jnp.ones_like(x), 2, reference=np.ones(2), support=constraints.positive
        )
        numpyro.sample("x", exponential)

    found = potential_energy(model, (), {}, {"x": X[0]})
    np.testing.assert_allclose(found, np.sum(np.exp(X[0]) - 1 - X[0]), rtol=1e-13)


# A quarter of the period of a standard Gaussian; the default, a whole one, would not move.
hmc = partial(HMC, trajectory_length=np.pi / 2)


@pytest.mark.parametrize("kernel, dims", [(NUTS, (1, 10, 100)), (hmc, (10,))], ids=["NUTS", "HMC"])
def test_metropolis_kernels_find_the_variance_of_a_gaussian(kernel, dims):
    def model():
        for dim in dims:
            numpyro.sample(f"{dim} dimensions", ScoreDistribution(jnp.negative, dim))

    mcmc = MCMC(
        kernel(model),
        num_warmup=200,
        num_samples=500,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0))
    for x in mcmc.get_samples(group_by_chain=True).values():
        squares = np.mean(np.square(x, dtype=np.float64), axis=-1)
        standard_error = squares.std() / np.sqrt(effective_sample_size(squares))
        # A log density of zero, with the score as its gradient, gives 22.5 / 11.4 / 4.1.
        assert standard_error < 0.06
        assert abs(squares.mean() - 1) < 4 * standard_error


def test_a_score_of_another_shape_is_told():
    message = r"score must map one point to the same shape: it got shape \(2,\) and .* \(\)"
    with pytest.raises(ValueError, match=message):
        ScoreDistribution(log_mixture, 2)


def test_a_score_that_is_no_function_is_told():
    with pytest.raises(TypeError, match="score must be callable, got NoneType"):
        ScoreDistribution(None, 2)


@pytest.mark.parametrize("reference", [0.0, np.zeros(3), np.zeros((1, 2))])
def test_a_reference_of_another_shape_is_told(reference):
    with pytest.raises(ValueError, match=r"reference must be a point of shape \(2,\), got shape"):
        ScoreDistribution(jnp.negative, 2, reference=reference)
