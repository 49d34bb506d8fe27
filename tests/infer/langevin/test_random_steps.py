# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores.infer import trees
from numpyro_scores.infer.trees import scan_random


@pytest.mark.parametrize("largest_at_once", [2**16, 0], ids=["at-once", "in-the-loop"])
def test_each_step_has_numbers_of_its_own(monkeypatch, largest_at_once):
    monkeypatch.setattr(trees, "LARGEST_AT_ONCE", largest_at_once)

    def draw(key, shape):
        key_normal, key_uniform = random.split(key)
        return random.normal(key_normal, (*shape, 1_000)), random.uniform(key_uniform, shape)

    def step(total, numbers):
        noise, _ = numbers
        return total + noise, numbers

    total, (noise, uniform) = scan_random(step, draw, jnp.zeros(1_000), random.key(0), 5)
    assert noise.shape == (5, 1_000) and uniform.shape == (5,)
    np.testing.assert_allclose(total, noise.sum(axis=0), rtol=1e-5)
    assert len(set(uniform.tolist())) == 5
    correlation = np.corrcoef(noise)  # off the diagonal, with a standard error of 0.032
    assert np.abs(correlation - np.eye(5)).max() < 0.14
