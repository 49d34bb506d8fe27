# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every objective promises: energies as well as scores, any event shape, errors in words."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_scores import stein
from numpyro_scores.objectives import (
    DenoisingScoreMatching,
    ImplicitScoreMatching,
    SlicedScoreMatching,
)
from numpyro_scores.processes import VarianceExploding

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
X = np.random.default_rng(0).normal(size=(8, 4))
SCORE_OBJECTIVES = [
    ImplicitScoreMatching(),
    ImplicitScoreMatching(trace=stein.HutchinsonTrace(2)),
    SlicedScoreMatching(),
    SlicedScoreMatching(num_projections=3, projection=stein.sphere, variance_reduced=False),
    SlicedScoreMatching(projection=stein.gaussian),
    DenoisingScoreMatching(0.3),
]
PROCESS_OBJECTIVE = DenoisingScoreMatching(VarianceExploding(0.02, 10.0))


def energy(x):
    """Two modes, and every pair of coordinates coupled."""
    return jnp.sum(x**2) / 2 - jnp.logaddexp(jnp.sum(x), -jnp.sum(x)) + jnp.sum(x**4) / 8


def score(x):
    return -jax.grad(energy)(x)


def denoiser(x, sigma):
    return x / (1 + sigma**2) + jnp.tanh(jnp.sum(x)) * sigma


def module_for(objective):
    return denoiser if objective is PROCESS_OBJECTIVE else score


@partial(jax.jit, static_argnums=(0, 1))
def evaluate(objective, module, x, key=KEY):
    return objective(module, x, key=key)


SHAPES = [(4,), (2, 2)]


def name(objective):
    """The same in every process: the address of a function is not."""
    return re.sub(r"<function (\w+) at \w+>", r"\1", repr(objective))


OBJECTIVES = pytest.mark.parametrize("objective", [*SCORE_OBJECTIVES, PROCESS_OBJECTIVE], ids=name)


@pytest.mark.parametrize("objective", SCORE_OBJECTIVES, ids=name)
def test_an_energy_has_the_loss_of_its_score(x64, objective):
    np.testing.assert_allclose(
        evaluate(objective, energy, X), evaluate(objective, score, X), rtol=1e-13
    )


@OBJECTIVES
def test_the_event_shape_does_not_matter(x64, objective):
    flat, square = (evaluate(objective, module_for(objective), X.reshape(8, *s)) for s in SHAPES)
    np.testing.assert_allclose(flat, square, rtol=1e-13)


@OBJECTIVES
def test_the_key_decides(objective):
    module = module_for(objective)
    first, again, other = (evaluate(objective, module, X, random.key(i)) for i in (0, 0, 1))
    assert first == again
    assert (first != other) == (not isinstance(objective, ImplicitScoreMatching))


def test_equal_objectives_compile_once():
    traces = []

    def counted(x):
        traces.append(x)
        return -x

    evaluate(SlicedScoreMatching(num_projections=7), counted, X)
    num_traces = len(traces)
    evaluate(SlicedScoreMatching(num_projections=7), counted, X)
    assert num_traces == len(traces) > 0


@OBJECTIVES
@pytest.mark.parametrize("shape", [(), (5,), (0, 3)])
def test_a_point_is_not_a_batch(objective, shape):
    with pytest.raises(ValueError, match=r"x must be a batch of points of shape \(n, \*event"):
        objective(module_for(objective), np.zeros(shape), key=KEY)


@OBJECTIVES
@pytest.mark.parametrize(
    "output", [lambda x, *_: x[:2], lambda x, *_: jnp.outer(x, x), lambda x, *_: x[None]]
)
def test_a_wrong_output_shape_is_told(objective, output):
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        objective(output, X, key=KEY)


def test_an_energy_is_not_a_denoiser():
    with pytest.raises(ValueError, match=r"denoiser D\(x, sigma\) must map one point"):
        PROCESS_OBJECTIVE(lambda x, sigma: energy(x), X, key=KEY)
