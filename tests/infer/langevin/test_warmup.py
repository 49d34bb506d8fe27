# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, random
from numpyro.infer.hmc_util import build_adaptation_schedule

from numpyro_scores.infer.adaptation import Adaptation

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_dense_metric_is_the_covariance_of_a_window_shrunk_to_its_diagonal(x64):
    """With half as many draws as dimensions in the window; each window anew, and not the ends."""
    d, num_warmup = 100, 300
    draws = random.normal(random.key(0), (num_warmup, d)) * jnp.linspace(1.0, 9.0, d)
    init, update = Adaptation.of(False, True, dense_mass=True).adapter(num_warmup)
    start = init((draws[0],), random.key(1), 1.0)

    def draw(state, t):
        state = update(t, 1.0, (draws[t],), state)
        return state, state.inverse_mass_matrix

    end, metrics = jax.jit(lambda s: lax.scan(draw, s, jnp.arange(num_warmup)))(start)
    _, first, *_, last, final = build_adaptation_schedule(num_warmup)
    assert (first.start, first.end) == (75, 99) and last.end < final.end
    np.testing.assert_array_equal(metrics[first.end - 1], np.eye(d))
    for window in (first, last):
        seen = draws[window.start : window.end + 1]
        n, covariance = len(seen), np.cov(seen.T)
        expected = (n * covariance + d * np.diag(np.diag(covariance))) / (n + d)
        # NumPyro shrinks before that, by a factor of n / (n + 5).
        np.testing.assert_allclose(
            metrics[window.end], expected * n / (n + 5), rtol=1e-10, atol=5e-3
        )
    np.testing.assert_array_equal(end.inverse_mass_matrix, metrics[last.end])
    root = end.mass_matrix_sqrt_inv
    np.testing.assert_allclose(root.T @ root, end.inverse_mass_matrix, atol=1e-12)
    np.testing.assert_allclose(root @ end.mass_matrix_sqrt, np.eye(d), atol=1e-10)
