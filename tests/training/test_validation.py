# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Points that are held out, early stopping, callbacks."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from training.helpers import DATA, distance, number, quick_fit, weight

from numpyro_scores.objectives import SlicedScoreMatching

pytestmark = pytest.mark.usefixtures("quick_compilation")

# One point, so that every batch is that point.
ZEROS, HELD_OUT = np.zeros((1, 1)), np.array([[1.0], [2.0], [6.0]])
FALLING = {"data": ZEROS, "batch_size": 1, "optimizer": optax.sgd(0.1), "ema_decay": 0.0}


def test_the_validation_loss_is_that_of_the_averaged_module(x64):
    modules = []
    fitted = quick_fit(
        number(4.0),
        distance,
        **FALLING | {"ema_decay": 0.5},
        validation=HELD_OUT,
        validate_every=8,
        callbacks=[lambda progress: modules.append((progress.step, progress.module))],
    )
    np.testing.assert_array_equal(fitted.validation_steps, [8, 16, 20])
    averages = {step: weight(module) for step, module in modules}
    # Three batches of one point each: the mean of their losses.
    exact = [np.mean((averages[step] - HELD_OUT) ** 2) / 2 for step in (8, 16, 20)]
    np.testing.assert_allclose(fitted.validation_losses, exact, rtol=1e-12)
    assert fitted.validation_losses.dtype == fitted.losses.dtype == np.float64


def test_a_last_batch_counts_by_its_points(x64):
    fitted = quick_fit(
        number(4.0),
        lambda module, x, *, key: jnp.mean(module.args[0] * 0 + x),
        **FALLING | {"data": np.zeros((2, 1)), "batch_size": 2},
        validation=HELD_OUT,
    )
    np.testing.assert_allclose(fitted.validation_losses, HELD_OUT.mean(), rtol=1e-12)


def test_validation_changes_nothing_but_what_is_told():
    alone = quick_fit()
    fitted = quick_fit(validation=DATA[:20], callbacks=[lambda progress: None])
    np.testing.assert_array_equal(alone.losses, fitted.losses)
    np.testing.assert_array_equal(weight(alone.module), weight(fitted.module))
    assert len(alone.validation_losses) == len(alone.validation_steps) == 0
    # The key is always the same: what differs is what was learned.
    still = quick_fit(optimizer=optax.sgd(0.0), validation=DATA[:20])
    assert len(set(still.validation_losses)) == 1


def test_patience_stops_training_and_returns_the_best_average(x64):
    # The weight falls from 4 to 0, and passes the held-out mean of 3 on its way, after 3 steps:
    # 4 * 0.9^3 = 2.92.
    options = FALLING | {"num_steps": 200, "validation": HELD_OUT, "validate_every": 1}
    fitted = quick_fit(number(4.0), distance, **options, patience=5)
    np.testing.assert_array_equal(fitted.validation_steps, np.arange(1, 9))
    assert np.argmin(fitted.validation_losses) == 2 and len(fitted.losses) == 8
    np.testing.assert_allclose(weight(fitted.module), 4 * 0.9**3, rtol=1e-12)
    # Where it never stops, the best one is still returned; without patience the last one.
    for patience, steps in ((300, 3), (None, 200)):
        fitted = quick_fit(number(4.0), distance, **options, patience=patience)
        np.testing.assert_allclose(weight(fitted.module), 4 * 0.9**steps, rtol=1e-9)
        assert len(fitted.losses) == 200


def test_a_callback_sees_the_training_and_stops_it(x64):
    seen = []

    def stop(progress):
        seen.append(progress)
        return progress.step == 12

    fitted = quick_fit(number(4.0), distance, **FALLING, callbacks=[stop])
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert seen[0].validation_loss is None
    np.testing.assert_allclose([progress.loss for progress in seen], fitted.losses, rtol=1e-12)
    # The modules are the callback's to keep, though training goes on in place.
    kept = [weight(progress.module) for progress in seen]
    np.testing.assert_allclose(kept, 4 * 0.9 ** np.arange(1.0, 13), rtol=1e-12)
    np.testing.assert_array_equal(weight(fitted.module), kept[-1])
    # Before the first validation loss there is no best module.
    options = FALLING | {"validation": HELD_OUT, "validate_every": 15, "patience": 1}
    fitted = quick_fit(number(4.0), distance, **options, callbacks=[stop])
    np.testing.assert_array_equal(weight(fitted.module), kept[-1])


@dataclass(frozen=True)
class Steep:
    """A loss whose gradient is large."""

    scale: float

    def __call__(self, module: Any, x: Any, *, key: Any) -> Any:
        return self.scale * distance(module, x, key=key)


def test_gradients_are_clipped_by_the_optimizer(x64):
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    fitted = quick_fit(number(4.0), Steep(1e6), **FALLING | {"optimizer": clipped})
    # Each step is 0.1 long, whatever the gradient.
    np.testing.assert_allclose(weight(fitted.module), 4 - 0.1 * 20, rtol=1e-9)


def test_the_bar_shows_the_validation_loss(capsys):
    from numpyro_scores.training import fit

    fit(
        number(4.0), distance, ZEROS, key=random.key(0), num_steps=3, batch_size=1, validation=ZEROS
    )
    assert "validation=" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"patience": 3}, ValueError, "patience=3 counts validation losses: give points"),
        ({"validation": DATA, "patience": 0}, ValueError, "patience must be a positive integer"),
        ({"validate_every": 0}, ValueError, "validate_every must be a positive integer, got 0"),
        ({"validation": DATA * np.nan}, ValueError, "validation must be finite: 600 of 600"),
        ({"validation": DATA[0]}, ValueError, "validation must be a batch of points"),
        ({"validation": DATA * 1e30}, FloatingPointError, "validation loss is inf after 1 steps"),
    ],
)
def test_a_bad_option_is_told(options, error, message):
    with pytest.raises(error, match=message):
        quick_fit(objective=SlicedScoreMatching(), **options)
