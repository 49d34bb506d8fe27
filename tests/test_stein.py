# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Projections and traces."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores.densities import traces
from numpyro_scores.densities.traces import ExactTrace, HutchinsonTrace

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHAPE = (2, 2)
POINT = np.array([[0.3, -1.2], [0.7, 2.0]])
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=4))).reshape(-1, *SHAPE)


def field(x):
    """A field with a full Jacobian that isn't symmetric."""
    return jnp.sin(x) @ jnp.array([[1.0, 2.0], [-0.5, 0.3]]) + x * jnp.sum(x**2)


def trace_of_jacobian(x):
    return jnp.trace(jax.jacobian(field)(x).reshape(4, 4))


def test_the_exact_trace_is_that_of_the_jacobian(x64):
    value, trace = ExactTrace()(field, POINT)
    np.testing.assert_allclose(value, field(POINT), rtol=1e-14)
    np.testing.assert_allclose(trace, trace_of_jacobian(POINT), rtol=1e-14)


def test_the_mean_over_all_signs_is_the_exact_trace(x64, monkeypatch):
    monkeypatch.setattr(traces, "rademacher", lambda key, shape, dtype: SIGNS)
    value, trace = HutchinsonTrace(num_probes=len(SIGNS))(field, POINT)
    np.testing.assert_allclose(value, field(POINT), rtol=1e-14)
    np.testing.assert_allclose(trace, trace_of_jacobian(POINT), rtol=1e-13)


def test_one_probe_of_signs_finds_a_diagonal_jacobian_exactly(x64):
    _, trace = HutchinsonTrace(num_probes=1)(jnp.sin, POINT)
    np.testing.assert_allclose(trace, np.cos(POINT).sum(), rtol=1e-14)


def test_hutchinson_is_one_function_of_its_seed(x64):
    def trace(seed, x=POINT):
        return HutchinsonTrace(2, seed)(field, x)[1]

    values = [float(trace(seed)) for seed in (0, 1, 2, 3, 0)]
    assert values[0] == values[4]
    assert len(set(values)) > 1
    batch = jnp.stack([POINT, POINT])
    np.testing.assert_allclose(jax.vmap(lambda x: trace(0, x))(batch), values[0], rtol=1e-13)


@pytest.mark.parametrize("projection", [traces.gaussian, traces.rademacher, traces.sphere])
def test_projections_have_identity_covariance(projection):
    # 10^5 draws: the standard error of an entry is at most 0.0045.
    keys = random.split(random.key(1), 100_000)
    v = jax.vmap(lambda key: projection(key, (3, 1)))(keys).reshape(-1, 3)
    np.testing.assert_allclose(v.T @ v / len(v), np.eye(3), atol=0.025)
    np.testing.assert_allclose(v.mean(0), 0, atol=0.02)


def test_signs_are_signs_and_the_sphere_has_radius_root_d(x64):
    assert set(np.unique(traces.rademacher(random.key(0), (50,)))) == {-1.0, 1.0}
    np.testing.assert_allclose(jnp.linalg.norm(traces.sphere(random.key(0), (7,))), 7**0.5)


@pytest.mark.parametrize("projection", [traces.gaussian, traces.rademacher, traces.sphere])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_projections_have_the_dtype_asked_for(x64, projection, dtype):
    v = projection(random.key(0), SHAPE, dtype)
    assert (v.shape, v.dtype) == (SHAPE, dtype)


@pytest.mark.parametrize("num_probes", [0, -1, 1.5, True])
def test_a_bad_number_of_probes_is_told(num_probes):
    with pytest.raises(ValueError, match="num_probes must be a positive integer"):
        HutchinsonTrace(num_probes)
