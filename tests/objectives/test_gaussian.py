# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
The objectives on a Gaussian, exactly: where the minimum is, and its value.

For the score :math:`s(x) = -P x` every loss is quadratic in the data, the projection and the noise,
so a few points with the right second moments stand for the whole distribution.
"""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores.objectives import (
    DenoisingScoreMatching,
    FiniteDifferenceScoreMatching,
    ImplicitScoreMatching,
    SlicedScoreMatching,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

DIM = 3
COVARIANCE = np.array([[1.0, 0.6, 0.1], [0.6, 2.0, -0.3], [0.1, -0.3, 0.5]])
PRECISION = np.linalg.inv(COVARIANCE)
OTHER = np.array([[0.7, 0.2, 0.0], [-0.4, 1.3, 0.5], [0.3, 0.1, 0.9]])
KEY = random.key(0)


def sigma_points(covariance):
    """Points of mean zero whose second moments are exactly `covariance`."""
    root = np.sqrt(len(covariance)) * np.linalg.cholesky(covariance).T
    return np.concatenate([root, -root])


X = sigma_points(COVARIANCE)
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=DIM)))


def linear_score(P):
    return lambda x: -P @ x


def implicit(P):
    return ImplicitScoreMatching()(linear_score(P), X)


def sliced_over_all_signs(P, variance_reduced):
    """The expectation over Rademacher projections."""

    def loss(v):
        objective = SlicedScoreMatching(
            projection=lambda key, shape, dtype: v, variance_reduced=variance_reduced
        )
        return objective(linear_score(P), X, key=KEY)

    return jnp.mean(jax.vmap(loss)(jnp.asarray(SIGNS)))


def finite_difference(P):
    """The expectation over Rademacher projections, with a step of no small size."""

    def loss(v):
        objective = FiniteDifferenceScoreMatching(0.5, projection=lambda key, shape, dtype: v)
        return objective(linear_score(P), X, key=KEY)

    return jnp.mean(jax.vmap(loss)(jnp.asarray(SIGNS)))


SLICED = [
    lambda P: sliced_over_all_signs(P, True),
    lambda P: sliced_over_all_signs(P, False),
    finite_difference,
]
IDS = ["implicit", "sliced, variance reduced", "sliced", "finite difference"]


@pytest.mark.parametrize("loss", [implicit, *SLICED], ids=IDS)
def test_the_loss_is_the_closed_form_at_any_precision(x64, loss):
    loss = jax.jit(loss)
    expected = np.trace(OTHER.T @ OTHER @ COVARIANCE) / 2 - np.trace(OTHER)
    np.testing.assert_allclose(loss(OTHER), expected, rtol=1e-13)
    np.testing.assert_allclose(jax.grad(loss)(OTHER), OTHER @ COVARIANCE - np.eye(DIM), atol=1e-12)


@pytest.mark.parametrize("loss", [implicit, *SLICED], ids=IDS)
def test_the_minimum_is_at_the_inverse_covariance(x64, loss):
    loss = jax.jit(loss)
    np.testing.assert_allclose(loss(PRECISION), -np.trace(PRECISION) / 2, rtol=1e-13)
    np.testing.assert_allclose(jax.grad(loss)(PRECISION), 0, atol=1e-12)
    hessian = jax.hessian(loss)(PRECISION).reshape(DIM**2, DIM**2)
    assert np.linalg.eigvalsh(hessian).min() > 0.1


def test_signs_see_a_diagonal_jacobian_without_variance(x64):
    precision = np.diag([0.5, 1.0, 2.0])
    losses = [SlicedScoreMatching()(linear_score(precision), X, key=random.key(i)) for i in (0, 1)]
    np.testing.assert_allclose(losses, implicit(precision), rtol=1e-13)


@pytest.mark.parametrize("variance_reduced", [True, False])
def test_sliced_score_matching_averages_its_projections(x64, variance_reduced):
    # 6 * 20,000 projections: the standard error is 0.01 or less.
    objective = SlicedScoreMatching(num_projections=20_000, variance_reduced=variance_reduced)
    loss = objective(linear_score(OTHER), X, key=KEY)
    np.testing.assert_allclose(loss, implicit(OTHER), atol=0.05)


@pytest.fixture
def joint_points(monkeypatch):
    """Clean points and noise whose joint second moments are those of N(0, C) and N(0, I)."""
    both = np.block([[COVARIANCE, np.zeros((DIM, DIM))], [np.zeros((DIM, DIM)), np.eye(DIM)]])
    x0, z = np.split(sigma_points(both), 2, axis=1)
    monkeypatch.setattr(random, "normal", lambda key, shape, dtype: jnp.asarray(z, dtype))
    return x0


@pytest.mark.parametrize("control_variate", [False, True])
@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_denoising_has_its_minimum_at_the_smoothed_precision(
    x64, joint_points, sigma, control_variate
):
    objective = DenoisingScoreMatching(sigma, control_variate=control_variate)

    @jax.jit
    def loss(P):
        return objective(linear_score(P), joint_points, key=KEY)

    smoothed = COVARIANCE + sigma**2 * np.eye(DIM)
    precision = np.linalg.inv(smoothed)
    np.testing.assert_allclose(
        loss(precision), (DIM - sigma**2 * np.trace(precision)) / 2, rtol=1e-12
    )
    np.testing.assert_allclose(jax.grad(loss)(precision), 0, atol=1e-11)
    expected = sigma**2 * (OTHER @ smoothed - np.eye(DIM))
    np.testing.assert_allclose(jax.grad(loss)(OTHER), expected, atol=1e-11)


@dataclass(frozen=True)
class OneLevel:
    """A process of one noise level."""

    sigma: float

    def noise_level(self, t):
        return jnp.full_like(t, self.sigma)


@pytest.mark.parametrize("sigma", [0.1, 3.0])
def test_the_best_linear_denoiser_is_the_wiener_filter(x64, joint_points, sigma):
    objective = DenoisingScoreMatching(OneLevel(sigma), weight=lambda sigma: 1.0)

    @jax.jit
    def loss(W):
        return objective(lambda x, sigma: W @ x, joint_points, key=KEY)

    wiener = COVARIANCE @ np.linalg.inv(COVARIANCE + sigma**2 * np.eye(DIM))
    np.testing.assert_allclose(
        loss(wiener), np.trace(COVARIANCE - wiener @ COVARIANCE) / DIM, rtol=1e-11
    )
    np.testing.assert_allclose(jax.grad(loss)(wiener), 0, atol=1e-11)
