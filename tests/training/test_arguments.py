# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What `fit` takes for its arguments, what it says of others, and of data of another scale."""

import re
import warnings

import numpy as np
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax import random
from training.helpers import DATA, quick_fit

import numpyro_scores as ns
from numpyro_scores.objectives import DenoisingScoreMatching, ImplicitScoreMatching
from numpyro_scores.training import FitResult, fit
from numpyro_scores.training._scales import warn_of_scales

pytestmark = pytest.mark.usefixtures("quick_compilation")


def network(sigma_data=1.0):
    options = {"hidden_features": 4, "num_layers": 1, "sigma_data": sigma_data}
    return ns.nn.MLPDenoiser((3,), rngs=nnx.Rngs(0), **options)


OBJECTIVE = DenoisingScoreMatching(ns.VarianceExploding(0.1, 5.0))
OPTIONS = {"key": random.key(0), "num_steps": 2, "batch_size": 8, "progress_bar": False}


@pytest.mark.parametrize(
    "arguments, options, error, words",
    [
        (
            (network(), DATA, OBJECTIVE),
            {},
            TypeError,
            "got ndarray of shape .*order",
        ),
        ((OBJECTIVE, network(), DATA), {}, TypeError, "the objective, got MLPDenoiser.*order"),
        ((network(), OBJECTIVE, network()), {}, TypeError, "data must be an array .*MLPDenoiser"),
        ((network(), OBJECTIVE, None), {}, TypeError, "data must be an array .* got None"),
        ((network(), OBJECTIVE, "abc"), {}, TypeError, "array of numbers"),
        ((FitResult(network(), np.ones(1)), OBJECTIVE, DATA), {}, TypeError, "fitted.module"),
        (
            (network(), ImplicitScoreMatching, DATA),
            {},
            TypeError,
            r"ImplicitScoreMatching\(\)",
        ),
        ((ns.nn.MLPDenoiser, OBJECTIVE, DATA), {}, TypeError, "class MLPDenoiser"),
        ((network(), ns.MALA(lambda: None), DATA), {}, TypeError, "objective must be .*got MALA"),
        ((network(), dist.Normal(), DATA), {}, TypeError, "objective must be .* got Normal"),
        ((network(), "dsm", DATA), {}, TypeError, "objective must be .* got 'dsm'"),
        ((network(), OBJECTIVE, DATA), {"key": 0}, ValueError, r"jax.random.key\(0\)"),
        ((network(), OBJECTIVE, DATA), {"callbacks": [1]}, TypeError, "callbacks must be callable"),
        ((network(), OBJECTIVE, DATA), {"optimizer": 1e-3}, TypeError, "one of Optax.*0.001"),
        ((network(), OBJECTIVE, DATA), {"validation": []}, ValueError, "validation has no points"),
        (
            (network(), OBJECTIVE, DATA),
            {"validation": [DATA, DATA[:, :2]]},
            ValueError,
            "batches of validation must have points of one shape",
        ),
        ((network(), OBJECTIVE, [[1.0], [1.0, 2.0]]), {}, ValueError, "points of one shape"),
    ],
)
def test_another_argument_is_told(arguments, options, error, words):
    with pytest.raises(error, match=f"(?s){words}"):
        fit(*arguments, **OPTIONS | options)


def test_one_callback_batches_to_validate_and_rows_are_taken():
    steps = []
    rows = [row.tolist() for row in DATA]
    fitted = quick_fit(
        data=rows, validation=[DATA[:5], DATA[5:9]], callbacks=lambda p: steps.append(p.step)
    )
    whole = quick_fit(validation=DATA[:9])
    assert steps == list(range(1, 21))
    np.testing.assert_array_equal(fitted.losses, whole.losses)
    np.testing.assert_array_equal(fitted.validation_losses, whole.validation_losses)


def test_a_result_shows_itself_in_a_line():
    fitted = fit(network(), OBJECTIVE, DATA, **OPTIONS, validation=DATA[:9])
    assert repr(fitted).startswith("FitResult(module=MLPDenoiser, 2 steps, loss ")
    assert len(str(fitted)) < 160 and "\n" not in str(fitted)


def warned(module, objective, data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_scales(module, objective, data)
    return [str(warning.message) for warning in caught]


def levels(sigma_min, sigma_max):
    return DenoisingScoreMatching(ns.VarianceExploding(sigma_min, sigma_max))


PICTURES = np.random.default_rng(0).uniform(0, 255, (300, 4, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "module, objective, data, words",
    [
        (network(), levels(0.02, 80.0), PICTURES, "standard deviation 73.* sigma_data=1.*Standard"),
        (
            network(),
            levels(0.1, 5.0),
            {"x": DATA / 50, "label": np.zeros(200, int)},
            "sigma_data=1",
        ),
        (None, levels(0.01, 10.0), DATA, r"sigma_min=0.01 is 1/\d+ of .*score_by_level"),
        (None, levels(0.1, 1.0), DATA, r"sigma_max=1 is 0\.\d+ times .*up to 5\d% of"),
        (None, levels(3.0, 10.0), DATA, "sigma_min=3 is larger than the standard deviation"),
    ],
)
def test_data_of_another_scale_are_told(module, objective, data, words):

    assert any(re.search(words, line) for line in warned(module, objective, data))


@pytest.mark.parametrize(
    "module, objective, data",
    [
        (network(), levels(0.05, 5.0), DATA),
        (network(60.0), levels(3.0, 500.0), (PICTURES - 127).reshape(300, 16)),
        (network(), levels(0.05, 5.0), {"x": DATA, "y": DATA}),
        (None, ImplicitScoreMatching(), 1e3 * DATA),
        (None, DenoisingScoreMatching(0.1), DATA),
        (None, levels(0.05, 5.0), np.zeros((5, 3))),
        (None, levels(0.05, 5.0), DATA[:1]),
    ],
)
def test_data_of_the_right_scale_are_not(module, objective, data):
    assert not warned(module, objective, data)


def test_the_variance_that_is_lost_is_the_formula():
    # From N(0, s^2) at the largest level, a direction of variance c ends with c s^2 / (c + s^2).
    data = np.array([[3.0, 0.5], [3.0, -0.5], [-3.0, 0.5], [-3.0, -0.5]])
    (line,) = warned(None, levels(0.1, 3.0), data)
    assert "up to 50% of the variance" in line and "sigma_max=15" in line


def test_fit_warns_where_it_is_called():
    with pytest.warns(UserWarning, match="sigma_data=1") as caught:
        fit(network(), levels(3.0, 300.0), 60 * DATA, **OPTIONS)
    assert caught[0].filename == __file__
