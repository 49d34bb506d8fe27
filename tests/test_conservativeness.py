# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How far a score is from a gradient field: closed forms of linear fields, Stokes' theorem."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import random
from jax.tree_util import Partial

import numpyro_scores as ns
from numpyro_scores._compile import _program
from numpyro_scores.densities import conservativeness as module
from numpyro_scores.densities.conservativeness import conservativeness, jacobian_asymmetry

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
RNG = np.random.default_rng(0)
SYMMETRIC = np.cov(RNG.normal(size=(4, 9)))
ANTISYMMETRIC = np.triu(RNG.normal(size=(4, 4)), 1)
ANTISYMMETRIC -= ANTISYMMETRIC.T
POINTS = RNG.normal(size=(5, 2, 2))
MATRIX = RNG.normal(size=(2, 2))
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=4))).reshape(-1, 2, 2)


def linear(matrix):
    return lambda x: (matrix @ x.ravel()).reshape(x.shape)


def curved(matrix, x):
    """A field whose Jacobian varies and is neither symmetric nor antisymmetric."""
    return jnp.sin(x) @ matrix - x * jnp.sum(x**2)


def field(x):
    return curved(MATRIX, x)


def rotation(x):
    return jnp.stack([-x[1], x[0]])


def two_modes(x):
    """The exact score of two modes at (-2, 0) and (2, 1)."""
    means = jnp.array([[-2.0, 0.0], [2.0, 1.0]])
    return jax.grad(lambda x: jax.nn.logsumexp(-jnp.sum((x - means) ** 2, axis=1) / 0.6))(x)


def jacobians(score, x):
    size = x[0].size
    return np.asarray(jax.vmap(jax.jacobian(score))(x)).reshape(len(x), size, size)


def test_the_asymmetry_of_a_linear_score_is_that_of_its_matrix(x64, monkeypatch):
    # Scaled unit vectors are probes with identity covariance.
    basis = jnp.tile(2 * jnp.eye(4).reshape(4, 2, 2), (len(POINTS), 1, 1, 1))
    monkeypatch.setattr(module, "rademacher", lambda key, shape, dtype: basis)
    score = linear(-(SYMMETRIC + ANTISYMMETRIC))
    exact = np.sqrt(np.sum(ANTISYMMETRIC**2) / np.sum(SYMMETRIC**2 + ANTISYMMETRIC**2))
    found = jacobian_asymmetry(score, POINTS, key=KEY, num_probes=4)
    np.testing.assert_allclose(found, exact, rtol=1e-14)


def test_the_mean_over_all_signs_is_the_asymmetry_over_the_points(x64, monkeypatch):
    signs = jnp.tile(SIGNS, (len(POINTS), 1, 1, 1))
    monkeypatch.setattr(module, "rademacher", lambda key, shape, dtype: signs)
    jacobian = jacobians(field, POINTS)
    difference = jacobian - jacobian.transpose(0, 2, 1)
    exact = np.sqrt(np.sum(difference**2) / (4 * np.sum(jacobian**2)))
    found = jacobian_asymmetry(field, POINTS, key=KEY, num_probes=len(SIGNS))
    np.testing.assert_allclose(found, exact, rtol=1e-14)


def test_random_probes_are_near_the_mean_over_all_signs(x64):
    # Over keys the square, 0.0132, has a standard deviation of 0.00007.
    jacobian = jacobians(field, POINTS)
    difference = jacobian - jacobian.transpose(0, 2, 1)
    exact = np.sum(difference**2) / (4 * np.sum(jacobian**2))
    found = jacobian_asymmetry(field, POINTS, key=KEY, num_probes=4_000)
    np.testing.assert_allclose(found**2, exact, atol=0.0004)


@pytest.mark.parametrize("num_probes", [1, 3])
def test_a_rotation_is_one_and_the_score_of_a_gaussian_zero_for_any_probe(x64, num_probes):
    rotating = linear(ANTISYMMETRIC)
    asymmetry = jacobian_asymmetry(rotating, POINTS, key=KEY, num_probes=num_probes)
    np.testing.assert_allclose(asymmetry, 1, rtol=1e-14)
    gaussian = linear(-np.linalg.inv(SYMMETRIC))
    found = conservativeness(gaussian, POINTS, key=KEY, num_probes=num_probes)
    assert found.asymmetry < 1e-14
    assert found.loop_residual < 1e-12
    assert found.relative_loop_residual < 1e-13


def test_the_loop_residual_of_a_rotation_is_twice_the_area_of_the_triangle(x64):
    # Three points have one triangle, whatever its first corner and its sense of rotation.
    a, b, c = triangle = np.array([[0.3, -1.0], [2.0, 0.5], [-0.7, 1.9]])
    area = abs(np.linalg.det([b - a, c - a])) / 2
    found = conservativeness(lambda x: 0.7 * rotation(x), triangle, key=KEY, num_loops=5)
    np.testing.assert_allclose(found.loop_residual, 2 * 0.7 * area, rtol=1e-13)


def test_the_loop_residual_of_a_linear_score_is_that_of_its_antisymmetric_part(x64):
    a, b, c = POINTS[:3].reshape(3, 4)
    score = linear(-(SYMMETRIC + ANTISYMMETRIC))
    found = conservativeness(score, POINTS[:3], key=KEY, num_loops=5)
    exact = abs((c - a) @ ANTISYMMETRIC @ (b - a))
    np.testing.assert_allclose(found.loop_residual, exact, rtol=1e-12)


def test_the_relative_residual_is_one_where_all_sides_run_with_the_field(x64):
    angles = 2 * np.pi * np.arange(3) / 3
    triangle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = conservativeness(rotation, triangle, key=KEY)
    np.testing.assert_allclose(found.relative_loop_residual, 1, rtol=1e-14)
    # Along the sides from the centre a rotation does no work, and the third is all that is left.
    centred = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    drifting = conservativeness(lambda x: rotation(x) + 3.0, centred, key=KEY)
    np.testing.assert_allclose(drifting.loop_residual, 1, rtol=1e-13)
    np.testing.assert_allclose(drifting.relative_loop_residual, 1 / 7, rtol=1e-13)


def test_the_residual_is_a_log_density_ratio_by_the_reference_less_the_direct_one(x64):
    a, b, c = POINTS[:3]
    by_reference = ns.ScoreDistribution(field, (2, 2), reference=a)
    direct = ns.ScoreDistribution(field, (2, 2), reference=b)
    ratio = by_reference.log_prob(c) - by_reference.log_prob(b)
    found = conservativeness(field, POINTS[:3], key=KEY)
    np.testing.assert_allclose(found.loop_residual, abs(ratio - direct.log_prob(c)), rtol=1e-10)


def test_a_residual_without_asymmetry_is_the_error_of_the_quadrature(x64):
    x = np.array([[-2.0, 0.1], [2.1, 1.0], [-1.8, 0.0], [2.0, 0.8]])
    few, many = (
        conservativeness(two_modes, x, key=KEY, quadrature=ns.LineIntegral(n)) for n in (4, 64)
    )
    assert few.loop_residual > 0.1 > 1e-4 > many.loop_residual
    assert few.asymmetry == many.asymmetry < 1e-14


def test_an_energy_network_is_a_gradient_to_rounding_and_a_denoiser_is_not():
    x = random.normal(random.key(1), (20, 8, 8))
    energy = ns.nn.MLPEnergy((8, 8), rngs=nnx.Rngs(0), hidden_features=16)
    gradient = jax.tree_util.Partial(lambda energy, x: -jax.grad(energy)(x), energy)
    found = conservativeness(gradient, x, key=KEY)
    assert found.asymmetry < 1e-6 and found.relative_loop_residual < 1e-5

    denoiser = ns.nn.MLPDenoiser((8, 8), rngs=nnx.Rngs(0), hidden_features=16, num_layers=1)
    score = jax.tree_util.Partial(lambda denoiser, x: (denoiser(x, 0.5) - x) / 0.5**2, denoiser)
    # Before training the readout is zero and the denoiser linear, x to a multiple of x.
    assert conservativeness(score, x, key=KEY).asymmetry == 0
    readout = denoiser.denoiser.network.linear_out.kernel
    readout[...] = random.normal(random.key(2), readout.shape)
    found = conservativeness(score, x, key=KEY)
    assert found.asymmetry > 0.3 and found.relative_loop_residual > 0.1


def test_scale_and_units_do_not_matter(x64):
    found = conservativeness(field, POINTS, key=KEY)
    scaled = conservativeness(lambda x: 7 * field(x), POINTS, key=KEY)
    np.testing.assert_allclose(scaled.asymmetry, found.asymmetry, rtol=1e-12)
    np.testing.assert_allclose(scaled.loop_residual, 7 * found.loop_residual, rtol=1e-12)
    relative = found.relative_loop_residual
    np.testing.assert_allclose(scaled.relative_loop_residual, relative, rtol=1e-12)
    # A score has the inverse unit of its point, and a log density none.
    in_other_units = conservativeness(lambda x: field(x / 1e3) / 1e3, 1e3 * POINTS, key=KEY)
    np.testing.assert_allclose(in_other_units, found, rtol=1e-11)


def test_the_gradient_of_a_score_distribution_is_as_asymmetric_as_the_score(x64):
    # What a kernel sees: the gradient of log_prob, not the function that was handed over.
    density = ns.ScoreDistribution(field, (2, 2))
    found = jacobian_asymmetry(jax.grad(density.log_prob), POINTS, key=KEY)
    np.testing.assert_allclose(found, jacobian_asymmetry(field, POINTS, key=KEY), rtol=1e-12)


def test_it_is_traced_once_and_runs_under_jit_and_vmap():
    score = Partial(curved, MATRIX)  # its weights are in sight
    first = conservativeness(score, POINTS, key=KEY)
    num_programs = _program.cache_info().misses
    assert conservativeness(score, POINTS, key=KEY) == first
    assert conservativeness(score, 2 * POINTS, key=random.key(1)) != first
    assert _program.cache_info().misses == num_programs

    @jax.jit
    @jax.vmap
    def scaled(scale):
        return conservativeness(lambda x: scale * field(x), POINTS, key=KEY)

    batched = scaled(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose([values[0] for values in batched], first, rtol=1e-4)
    np.testing.assert_allclose(batched.loop_residual[1], 2 * first.loop_residual, rtol=1e-4)


def test_a_constant_score_is_a_gradient_and_a_score_that_is_not_finite_has_no_number(x64):
    constant = conservativeness(jnp.ones_like, POINTS, key=KEY)
    assert constant.asymmetry == 0
    np.testing.assert_allclose(constant, 0, atol=1e-14)
    assert conservativeness(jnp.zeros_like, POINTS, key=KEY) == (0, 0, 0)
    assert np.isnan(conservativeness(lambda x: field(x) * jnp.nan, POINTS, key=KEY)).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_the_numbers_have_the_type_of_the_points(x64, dtype):
    x = np.array([[1, 0], [0, 2], [3, 1]], dtype)
    found = conservativeness(rotation, x, key=KEY)
    expected = np.float32 if dtype == np.float32 else np.float64
    assert {value.dtype for value in found} == {np.dtype(expected)}
    np.testing.assert_allclose(found.asymmetry, 1, rtol=1e-6)


@pytest.mark.parametrize(
    "score, x, arguments, message",
    [
        (field, POINTS[0, 0], {}, r"batch of points of shape \(n, \*event_shape\).*got shape \(2,"),
        (field, POINTS[:0], {}, r"n >= 1"),
        (field, POINTS[:2], {}, "at least 3 points, the corners of a triangle, got 2"),
        (field, np.where(POINTS > 1, np.nan, POINTS), {}, "x must be finite, but 2 of 5 points"),
        (jnp.sum, POINTS, {}, r"score must map one point.*got shape \(2, 2\).*returned shape \(\)"),
        (field, POINTS, {"num_probes": 0}, "num_probes must be a positive integer, got 0"),
        (field, POINTS, {"num_loops": 1.5}, "num_loops must be a positive integer, got 1.5"),
    ],
)
def test_what_cannot_be_measured_is_told(score, x, arguments, message):
    with pytest.raises(ValueError, match=message):
        conservativeness(score, x, key=KEY, **arguments)


def test_what_is_not_callable_is_told():
    with pytest.raises(TypeError, match="score must be callable, got"):
        conservativeness(POINTS, POINTS, key=KEY)


def test_one_point_has_an_asymmetry_but_no_loop(x64):
    asymmetry = jacobian_asymmetry(linear(ANTISYMMETRIC), POINTS[:1], key=KEY)
    np.testing.assert_allclose(asymmetry, 1, rtol=1e-14)


def test_it_is_a_diagnostic():
    assert ns.diagnostics.conservativeness is conservativeness
