# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Training."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import random
from jax.tree_util import Partial

from numpyro_scores.nn import MLPDenoiser, MLPEnergy
from numpyro_scores.objectives import (
    DenoisingScoreMatching,
    ImplicitScoreMatching,
    SlicedScoreMatching,
)
from numpyro_scores.processes import VarianceExploding
from numpyro_scores.training import fit

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
ROOT = np.array([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [-0.3, 0.2, 0.7]])
DATA = np.random.default_rng(0).normal(size=(500, 3)) @ ROOT.T


def linear_score(P, x):
    return -P @ x


def linear_module():
    return Partial(linear_score, jnp.eye(3))


def scalar_module(weight):
    return Partial(lambda w, x: w * x, jnp.array(weight))


def parameter(module):
    return np.asarray(module.args[0])


def quick_fit(module=None, objective=None, data=DATA, **options):
    options = {"key": KEY, "num_steps": 5, "batch_size": 16, "progress_bar": False} | options
    module = linear_module() if module is None else module
    return fit(module, objective or SlicedScoreMatching(), data, **options)


@pytest.mark.parametrize(
    "objective, sigma",
    [(ImplicitScoreMatching(), 0), (SlicedScoreMatching(2), 0), (DenoisingScoreMatching(0.5), 0.5)],
)
def test_fit_finds_the_precision_of_the_data(objective, sigma):
    fitted = quick_fit(
        objective=objective,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 1_000)),
        num_steps=1_000,
        batch_size=100,
        ema_decay=0.99,
    )
    # The data are all there is, their mean included: E[x x^T] stands for the covariance.
    exact = np.linalg.inv(DATA.T @ DATA / len(DATA) + sigma**2 * np.eye(3))
    np.testing.assert_allclose(parameter(fitted.module), exact, atol=0.06 * np.abs(exact).max())


def test_fit_is_plain_gradient_descent_on_the_whole_data(x64):
    # One point only, so that every batch is that point: P <- P - h (P x x^T - I).
    x = np.array([0.5, -1.0, 0.3])
    fitted = quick_fit(
        objective=ImplicitScoreMatching(),
        data=x[None],
        optimizer=optax.sgd(0.1),
        num_steps=20,
        batch_size=1,
        ema_decay=0.0,
    )
    P, losses = np.eye(3), []
    for _ in range(20):
        losses.append(np.sum((P @ x) ** 2) / 2 - np.trace(P))
        P = P - 0.1 * (np.outer(P @ x, x) - np.eye(3))
    np.testing.assert_allclose(parameter(fitted.module), P, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fitted.losses, losses, rtol=1e-12)


def test_the_average_is_the_formula(x64):
    optimizer = optax.adam(0.1)
    trajectory = [
        parameter(quick_fit(optimizer=optimizer, num_steps=t, ema_decay=0.0).module)
        for t in range(1, 5)
    ]
    # (1 + t) / (10 + t) is 0.1, 0.18, 0.25, 0.31: the warm-up ends between.
    average = np.eye(3)
    for t, P in enumerate(trajectory):
        decay = min(0.2, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * P
    fitted = quick_fit(optimizer=optimizer, num_steps=4, ema_decay=0.2)
    np.testing.assert_allclose(parameter(fitted.module), average, rtol=1e-12)


def test_a_batch_is_drawn_uniformly_with_replacement():
    # One weight that nothing moves, and a loss that names the points of its batch.
    module = scalar_module(1.0)

    def loss(weight):
        return lambda module, x, *, key: jnp.sum(weight(x[:, 0])) + 0 * module.args[0]

    points = np.arange(4.0)[:, None]
    options = {"data": points, "num_steps": 4_000, "optimizer": optax.sgd(0.0)}
    single = quick_fit(module, loss(lambda x: x), batch_size=1, **options).losses
    counts = np.bincount(single.astype(int), minlength=4)
    assert np.abs(counts - 1_000).max() < 5 * np.sqrt(4_000 * 3 / 16)
    # Four points of four: a permutation has the probability 4! / 4^4.
    codes = quick_fit(module, loss(lambda x: 10.0**x), batch_size=4, **options).losses
    np.testing.assert_allclose(np.mean(codes == 1111), 24 / 256, atol=0.025)


def test_the_same_key_gives_the_same_bits():
    first, again, other = (quick_fit(key=random.key(seed), num_steps=60) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.losses, again.losses)
    np.testing.assert_array_equal(parameter(first.module), parameter(again.module))
    assert not np.any(first.losses == other.losses)


def test_the_given_module_is_left_as_it_was():
    module = MLPDenoiser((3,), rngs=nnx.Rngs(0), hidden_features=8, num_layers=1)
    before = jax.tree.map(np.array, jax.tree.leaves(module))
    objective = DenoisingScoreMatching(VarianceExploding(0.1, 3.0))
    trained = quick_fit(module, objective, num_steps=60).module
    for leaf, old in zip(jax.tree.leaves(module), before, strict=True):
        np.testing.assert_array_equal(leaf, old)
    assert jax.tree.structure(trained) == jax.tree.structure(module)
    assert not np.array_equal(trained(DATA[0], 0.5), module(DATA[0], 0.5))


@pytest.mark.parametrize("num_steps", [1, 50, 149])
def test_training_traces_once_whatever_the_number_of_steps(num_steps):
    traces = []

    def counted(module, x, *, key):
        traces.append(x)
        return SlicedScoreMatching()(module, x, key=key)

    losses = quick_fit(objective=counted, num_steps=num_steps).losses
    # Once to check the shapes, once to compile.
    assert len(traces) == 2
    assert losses.shape == (num_steps,) and np.all(np.isfinite(losses))


def test_the_progress_bar_shows_the_loss_and_changes_nothing(capsys):
    silent = quick_fit(num_steps=60)
    assert capsys.readouterr().err == ""
    shown = quick_fit(num_steps=60, progress_bar=True)
    bar = capsys.readouterr().err
    assert "60/60" in bar and "loss=" in bar
    np.testing.assert_array_equal(silent.losses, shown.losses)


@jax.tree_util.register_dataclass
@dataclass
class Layer:
    """Weights of several kinds, as an Equinox module has them."""

    weight: Any
    order: Any
    activation: Any = field(metadata={"static": True}, default=jnp.tanh)

    def __call__(self, x):
        return -self.weight @ self.activation(x[self.order])


@pytest.mark.parametrize("array", [jnp.asarray, np.asarray])
def test_only_arrays_of_floats_are_trained(array):
    layer = Layer(weight=array(np.eye(3, dtype=np.float32)), order=array([2, 0, 1]))
    trained = quick_fit(layer).module
    assert not np.array_equal(trained.weight, np.eye(3))
    np.testing.assert_array_equal(trained.order, [2, 0, 1])
    assert trained.activation is jnp.tanh


def test_of_a_flax_module_only_parameters_are_trained():
    class Scaled(nnx.Module):
        def __init__(self):
            self.scale = nnx.Variable(jnp.array(2.0))
            self.weight = nnx.Param(jnp.eye(3))

        def __call__(self, x):
            return -self.scale[...] * self.weight[...] @ x

    trained = quick_fit(Scaled()).module
    assert trained.scale[...] == 2
    assert not np.array_equal(trained.weight[...], np.eye(3))


def test_parameters_keep_their_precision_under_x64(x64):
    # Flax makes float32 weights also where the data are float64.
    module = MLPEnergy((3,), rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    trained = quick_fit(module, DenoisingScoreMatching(0.3)).module
    assert {leaf.dtype for leaf in jax.tree.leaves(trained)} == {jnp.dtype(jnp.float32)}


def test_an_optimizer_that_holds_the_parameters_can_be_donated():
    optimizer = optax.contrib.schedule_free_sgd(0.01)
    assert np.all(np.isfinite(quick_fit(optimizer=optimizer, num_steps=60).losses))


def test_training_stops_at_the_first_loss_that_is_not_finite():
    # The weight falls by one a step: 71.5, 70.5, ..., and is negative at step 72.
    def root(module, x, *, key):
        return jnp.where(module.args[0] > 0, module.args[0], jnp.nan)

    with pytest.raises(FloatingPointError, match=r"nan at step 72 \(0.5 the step before\). Lower"):
        quick_fit(scalar_module(71.5), root, optimizer=optax.sgd(1.0), num_steps=400)
    with pytest.raises(FloatingPointError, match=r"at step 0 \(it is the first step\)"):
        quick_fit(scalar_module(-1.0), root)


def with_bad_entries(*indices):
    data = DATA.copy()
    for index in indices:
        data[index] = np.nan
    return data


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"data": with_bad_entries((7, 2), (9, 0))}, ValueError, r"2 of 1500 .* index \(7, 2\)"),
        ({"data": np.full((20, 3), np.inf)}, ValueError, r"60 of 60 .* index \(0, 0\)"),
        ({"data": DATA[:, 0]}, ValueError, r"data must be a batch .* got shape \(500,\)"),
        ({"data": DATA[:0]}, ValueError, r"n >= 1 .* got shape \(0, 3\)"),
        ({"data": np.zeros((20, 3), np.uint8)}, TypeError, "floats, got uint8. Scale it"),
        ({"data": np.zeros((20, 3), bool)}, TypeError, "floats, got bool"),
        ({"data": np.zeros((20, 3), complex)}, TypeError, "floats, got complex"),
        ({"data": DATA[:10]}, ValueError, r"batch_size=16 .* \(10, 3\): give batch_size=10"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0"),
        ({"batch_size": 1.5}, ValueError, "batch_size must be a positive integer, got 1.5"),
        ({"num_steps": 0}, ValueError, "num_steps must be a positive integer, got 0"),
        ({"num_steps": 10.0}, ValueError, "num_steps must be a positive integer, got 10.0"),
        ({"ema_decay": 1.0}, ValueError, r"ema_decay must be in \[0, 1\), got 1.0"),
        ({"ema_decay": -0.1}, ValueError, r"ema_decay must be in \[0, 1\)"),
        ({"ema_decay": float("nan")}, ValueError, r"ema_decay must be in \[0, 1\)"),
        ({"module": lambda x: -x}, TypeError, "nothing to train in function"),
        ({"module": jnp.eye(3)}, TypeError, "module must be callable"),
        (
            {"objective": lambda module, x, *, key: jax.vmap(module)(x)},
            ValueError,
            r"loss of shape \(\), got shape \(16, 3\)",
        ),
    ],
)
def test_a_bad_argument_is_told(options, error, message):
    with pytest.raises(error, match=message):
        quick_fit(**options)


@pytest.mark.parametrize(
    "module, objective",
    [
        (MLPEnergy((8, 8), rngs=nnx.Rngs(0), hidden_features=4), ImplicitScoreMatching()),
        (
            MLPDenoiser((8, 8), rngs=nnx.Rngs(0), hidden_features=4),
            DenoisingScoreMatching(VarianceExploding(0.1, 3.0)),
        ),
    ],
)
def test_a_module_of_another_event_shape_is_told_before_training(module, objective):
    with pytest.raises(ValueError, match=r"data of shape \(30, 64\)") as caught:
        quick_fit(module, objective, np.zeros((30, 64)))
    assert "point of shape (8, 8), got shape (64,)" in str(caught.value.__cause__)
    assert "point of shape (8, 8), got shape (64,)" in str(caught.value)


def test_a_denoiser_for_an_energy_is_told():
    denoiser = MLPDenoiser((3,), rngs=nnx.Rngs(0), hidden_features=4)
    with pytest.raises(ValueError, match=r"Expected an energy, x -> \(\), or a score"):
        quick_fit(denoiser, ImplicitScoreMatching())
